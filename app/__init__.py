"""Pricebook: a price service on two time axes."""
