"""Proofs on a real cluster: whatever ``KUBECONFIG`` leads to, with ``kubectl`` and ``helm`` on the path."""
