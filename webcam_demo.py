"""Find 106 facial landmarks before a camera, under AlphaPose's name: demo.py with --webcam; Ctrl-C, or q, ends it.

python3 webcam_demo.py --webcam 0 --outdir examples/outputs/ --vis
"""

import sys

from demo import main

if __name__ == "__main__":
    given = any(word.partition("=")[0] in ("--webcam", "--video") for word in sys.argv[1:])
    sys.exit(main(prog="webcam_demo.py", **({} if given else {"webcam": "0"})))
