"""``python -m jobs.report``: see ``maskrcnn.commands.report``."""

from maskrcnn.commands.report import main

if __name__ == "__main__":
    main()
