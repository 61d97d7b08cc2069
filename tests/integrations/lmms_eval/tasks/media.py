"""The image or the video of a question, as lmms-eval's tasks name them."""

from PIL import Image


def image_of(document):
    with Image.open(document["image"]) as image:
        return [image.convert("RGB")]


def video_of(document):
    return [document["video"]]
