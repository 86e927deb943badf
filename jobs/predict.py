"""``python -m jobs.predict``: see ``maskrcnn.commands.predict``."""

from maskrcnn.commands.predict import main

if __name__ == "__main__":
    main()
