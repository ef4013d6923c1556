"""Find 106 facial landmarks on every face of a video, under AlphaPose's name: demo.py with --video.

python3 video_demo.py --video clip.mp4 --outdir examples/outputs/ --save_video --smooth
"""

import sys

from demo import main

if __name__ == "__main__":
    sys.exit(main(prog="video_demo.py"))
