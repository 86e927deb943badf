"""Whether a COCO dataset can be trained on and scored against: findings that a person can act on, and statistics.

`scan` reads a file once, of any size, into `lists` of columns; `relations`, `geometry` and `files` find what is wrong;
`repair` writes a copy without it. pycocotools sees nothing that is not checked.
"""
