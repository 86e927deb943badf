"""``python -m jobs.validate``: see ``maskrcnn.commands.validate``."""

from maskrcnn.commands.validate import main

if __name__ == "__main__":
    main()
