"""``python -m jobs.demo``: see ``maskrcnn.commands.demo``."""

from maskrcnn.commands.demo import main

if __name__ == "__main__":
    main()
