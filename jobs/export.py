"""``python -m jobs.export``: see ``maskrcnn.commands.export``."""

from maskrcnn.commands.export import main

if __name__ == "__main__":
    main()
