"""Tells what a file is from its first bytes, whether it can be read or not."""

from __future__ import annotations

from typing import Final

#: The first bytes of the formats that are read.
_READ: Final = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"#?RADIANCE", "HDR"),
    (b"#?RGBE", "HDR"),
)
_NETPBM: Final = {
    **dict.fromkeys((b"P1", b"P4", b"P2", b"P5", b"P3", b"P6", b"P7"), "PNM"),
    **dict.fromkeys((b"Pf", b"PF"), "PFM"),
}
#: The first bytes of image formats that are not read, with their names.
_FOREIGN_IMAGES: Final = (
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (b"qoif", "a QOI file"),
    (b"\x01\xda\0\x01", "an SGI file"),
    (b"\x01\xda\x01\x01", "an SGI file"),
    (b"8BPS", "a Photoshop file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"\0\0\x01\0", "a Windows icon"),
    (b"icns", "an Apple icon"),
    (b"DDS ", "a DirectDraw texture"),
    (b"\x0a\x05\x01", "a PCX file"),
    (b"\x59\xa6\x6a\x95", "a Sun raster file"),
    (b"II\xbc", "a JPEG XR file"),
    (b"BPG\xfb", "a BPG file"),
    (b"AT&TFORM", "a DjVu file"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)"),
    (b"IIRO", "a camera's raw file (ORF)"),
    (b"IIRS", "a camera's raw file (ORF)"),
    (b"MMOR", "a camera's raw file (ORF)"),
    (b"IIU\0", "a camera's raw file (RW2)"),
    (b"\x89MNG", "an MNG animation"),
    (b"gimp xcf", "a GIMP file"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with 'git lfs pull'"),
    (b"<svg", "an SVG drawing"),
)
#: The first bytes of files that are no images, with their names.
_OTHERS: Final = (
    (b"%PDF", "a PDF file"),
    (b"%!PS", "a PostScript file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"CDF\x01", "a NetCDF file"),
    (b"CDF\x02", "a NetCDF file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"<html", "a web page"),
    (b"<!DOCTYPE html", "a web page"),
    (b"{\\rtf", "a text document"),
)
#: Other files that are no images.
_VIDEO, _AVI, _SOUND, _RIFF = (
    "an MP4 or QuickTime video",
    "an AVI video",
    "a sound file",
    "a RIFF file",
)
_XML, _TEXT, _UNKNOWN = "an XML file", "a text file", "of a format that is not known"
_NO_IMAGES: Final = frozenset(
    (*(name for _, name in _OTHERS), _VIDEO, _AVI, _SOUND, _RIFF, _XML, _TEXT, _UNKNOWN)
)
#: Suffixes of image files, read here or not.
_IMAGE_SUFFIXES: Final = frozenset(
    """
    .png .apng .jpg .jpeg .jpe .jfif .mpo .webp .bmp .dib .tif .tiff .gif .avif .jp2 .j2k
    .jpf .jpx .jpm .j2c .jpc .pbm .pgm .ppm .pnm .pam .pfm .hdr .pic .heic .heif .hif
    .jxl .exr .psd .svg .ico .tga .pcx .sgi .ras .qoi .dds .xcf .fits .dcm .cr2 .cr3 .nef
    .nrw .arw .dng .orf .rw2 .raf .pef .srw
    """.split()  # noqa: SIM905  # a list has a line for each
)
_HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_AVIF_BRANDS: Final = (b"avif", b"avis")


def kind_of(data: bytes) -> str | None:
    """Return the name of the format, such as "PNG", if it is one that is read; else None."""
    for start, name in _READ:
        if data.startswith(start):
            return name
    if data[:2] in _NETPBM and data[2:3].isspace():
        return _NETPBM[data[:2]]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    brands = _brands(data)
    if any(brand in brands for brand in _AVIF_BRANDS):
        return "AVIF"
    if any(brand in brands for brand in _HEIF_BRANDS):
        return "HEIC"
    return None


def describe_foreign(data: bytes) -> str:
    """Return what a file of no known image format is, as far as its bytes tell."""
    for start, name in (*_FOREIGN_IMAGES, *_OTHERS):
        if data[:64].lstrip().startswith(start) or data.startswith(start):
            return name
    if data[:4] == b"RIFF":
        return {b"AVI ": _AVI, b"WAVE": _SOUND}.get(data[8:12], _RIFF)
    if brands := _brands(data):
        return "a camera's raw file (CR3)" if b"crx " in brands else _VIDEO
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if data[:5] == b"<?xml":
        return "an SVG drawing" if b"<svg" in data[:4096] else _XML
    if b"\xff\xd8\xff" in data[1:64] or b"\x89PNG" in data[1:64]:
        return "an image with other bytes in front of it; remove them"
    if not any(data[:4096]):
        return "only zeros, as an interrupted copy leaves them"
    return _TEXT if _is_text(data[:512]) else _UNKNOWN


def has_image_suffix(name: str) -> bool:
    """Return whether a file is named like an image, read here or not."""
    return name[name.rfind(".") :].lower() in _IMAGE_SUFFIXES


def describe_no_image(data: bytes) -> str:
    """Return what a file is that is clearly no image, by its first bytes; empty for any other."""
    if kind_of(data) is not None:
        return ""
    found = describe_foreign(data)
    return found if found in _NO_IMAGES else ""


def _brands(data: bytes) -> tuple[bytes, ...]:
    """Return the brands of a file of the ISO family, such as HEIC, AVIF and MP4."""
    if data[4:8] != b"ftyp":
        return ()
    box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return tuple(box[at : at + 4] for at in range(0, len(box), 4))


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)
