"""Images of QR codes, bar codes and ArUco markers, and how to paste them into other images."""

from __future__ import annotations

import numpy as np
import zxingcpp

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

#: The digits of an EAN-13 in the left half, odd parity; the other two sets mirror it.
_ODD = (
    "0001101",
    "0011001",
    "0010011",
    "0111101",
    "0100011",
    "0110001",
    "0101111",
    "0111011",
    "0110111",
    "0001011",
)
#: Which of the left six digits are of even parity: that is how the first digit is written.
_EVEN = ("", "356", "346", "345", "256", "236", "234", "246", "245", "235")
_FLIPPED = str.maketrans("01", "10")


def qr(text: str, module: int = 3) -> Image:
    """A QR code with its white margin; `module` is the side of a square, pixels."""
    code = cv2.QRCodeEncoder.create().encode(text)
    return np.kron(code, np.ones((module, module), np.uint8))


def ean13(digits: str, module: int = 2, height: int = 80) -> Image:
    """A bar code of 13 digits with a white margin; `module` is the thinnest bar, pixels."""
    even = {int(place) for place in _EVEN[int(digits[0])]}
    left = "".join(_left(digits[i], i in even) for i in range(1, 7))
    right = "".join(_ODD[int(digit)].translate(_FLIPPED) for digit in digits[7:])
    bits = np.array([int(bit) for bit in f"101{left}01010{right}101"], np.uint8)
    bars = np.tile((1 - np.repeat(bits, module)) * 255, (height, 1)).astype(np.uint8)
    return margin(bars, 10 * module)


def _left(digit: str, even: bool) -> str:
    code = _ODD[int(digit)]
    return code.translate(_FLIPPED)[::-1] if even else code


def zxing(kind: str, text: str, module: int = 3) -> Image:
    """A code of ZXing's, such as Code128, with a white margin."""
    code = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, kind))
    squares = np.array(code.to_image(scale=1, add_hrt=False, add_quiet_zones=False), np.uint8)
    return margin(np.kron(squares, np.ones((module, module), np.uint8)), 6 * module)


def aruco(number: int, side: int = 60) -> Image:
    """A marker of the dictionary 4x4_50 with a white margin."""
    markers = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    return margin(cv2.aruco.generateImageMarker(markers, number, side), side // 4)


def margin(code: Image, width: int) -> Image:
    return cv2.copyMakeBorder(code, width, width, width, width, cv2.BORDER_CONSTANT, value=255)


def pasted(image: Image, code: Image, top: int, left: int) -> None:
    """Paste `code` into the gray `image`; what exceeds the image is cut off."""
    height, width = image[top:, left:].shape[:2]
    clipped = code[:height, :width]
    image[top : top + clipped.shape[0], left : left + clipped.shape[1]] = clipped
