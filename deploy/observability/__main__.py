"""Write the generated files: ``python -m deploy.observability``."""

from deploy.observability.files import generated

if __name__ == "__main__":
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
