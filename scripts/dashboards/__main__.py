"""Writes the dashboards and their page."""

from scripts.dashboards.catalogue import render


def main() -> None:
    """Write every file, and remove those of dashboards that are no more."""
    files = render()
    folders = {path.parent for path in files if path.suffix == ".json"}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for path in set(folder.glob("*.json")) - set(files):
            path.unlink()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
