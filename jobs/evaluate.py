"""``python -m jobs.evaluate``: see ``maskrcnn.commands.evaluate``."""

from maskrcnn.commands.evaluate import main

if __name__ == "__main__":
    main()
