"""fogmqtt: the boards you own as one dependable image processor over plain MQTT."""

import os

__version__ = "0.1.0"

# Intel's IPP rounds differently from OpenCV's own code, so a fleet with and without it would
# disagree about pixels. OpenCV reads this once, when cv2 is first imported; every program of
# ours imports this package before that.
os.environ["OPENCV_IPP"] = "disabled"
# OpenCV 5 warns about that choice on stderr at its first use; errors it still prints.
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
