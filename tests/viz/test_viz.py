from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from hf_token_compress import TokenCompressionConfig, load_tiny
from hf_token_compress.compression import SampleReport
from hf_token_compress.data.chat import encode, user_turn
from hf_token_compress.data.scenes import make_scene
from hf_token_compress.prompt import TokenGrid, VisualLayout, VisualSpan
from hf_token_compress.relevance import SampleRelevance
from hf_token_compress.viz import (
    answer_heat_maps,
    contact_sheet,
    frame_strip,
    heat_map,
    overlay,
    prompt_heat_maps,
)

RED = (230, 20, 30)
PAPER = (200, 200, 200)
# Enough to step over the border of a token and the blur of a resize.
INSET = 0.25


def report(grids, kept=(), scores=None):
    """One prompt with these grids, which kept the given (visual, frame, row, column)."""
    spans, start = [], 0
    for grid in grids:
        layout = VisualLayout.row_major(*grid)
        positions = torch.arange(start, start + layout.count)
        spans.append(VisualSpan("image", positions, layout.grids))
        start += layout.count
    keep = torch.zeros(start, dtype=torch.bool)
    for visual, frame, row, column in kept:
        _, rows, columns = grids[visual]
        keep[spans[visual].positions[0] + (frame * rows + row) * columns + column] = True
    return SampleReport(
        kept_indices=torch.arange(start)[keep],
        visual_indices=torch.arange(start),
        kept_visual=keep,
        scores=scores,
        visuals=tuple(spans),
        retention_ratio=0.5,
    )


def inside(size, grid, row, column):
    """Pixels well inside a token of a grid (rows, columns) over an image of a size (w, h)."""
    (width, height), (rows, columns) = size, grid
    top, bottom = (row + INSET) * height / rows, (row + 1 - INSET) * height / rows
    left, right = (column + INSET) * width / columns, (column + 1 - INSET) * width / columns
    return slice(int(np.ceil(top)), int(bottom)), slice(int(np.ceil(left)), int(right))


def pixels(image):
    return np.asarray(image, dtype=np.float64)


# Width and height that no grid divides, wide, high, tiny and large.
SHAPES = [
    ((640, 480), (12, 16)),
    ((1001, 333), (4, 12)),
    ((97, 411), (17, 4)),
    ((31, 23), (3, 4)),
    ((9, 7), (8, 10)),
    ((2003, 1501), (20, 27)),
]


@pytest.mark.parametrize(("size", "grid"), SHAPES)
@pytest.mark.parametrize("corner", ["first", "last", "middle"])
def test_the_lit_area_is_where_the_patch_is(size, grid, corner):
    rows, columns = grid
    row, column = {
        "first": (0, columns - 1),
        "last": (rows - 1, 0),
        "middle": (rows // 2, columns // 3),
    }[corner]
    # Paint the token's exact area at a high resolution, and let PIL resize it as a processor does.
    painted = Image.new("RGB", (columns * 40, rows * 40), PAPER)
    painted.paste(RED, (column * 40, row * 40, column * 40 + 40, row * 40 + 40))
    image = painted.resize(size, Image.Resampling.BILINEAR)
    lit = overlay(image, report([(1, *grid)], [(0, 0, row, column)]))
    enlarged = image.resize(lit.size, Image.Resampling.LANCZOS)
    patch = inside(lit.size, grid, row, column)
    assert pixels(lit)[patch].size
    np.testing.assert_array_equal(pixels(lit)[patch], pixels(enlarged)[patch])
    other = inside(lit.size, grid, (row + 1) % rows, (column + 1) % columns)
    assert pixels(lit)[other].max() < 0.5 * pixels(enlarged)[other].max()


def photograph(upright):
    """An image as a camera stores it that was held at 90 degrees."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    return Image.open(file)


@pytest.mark.parametrize("draw", [overlay, heat_map])
@pytest.mark.parametrize("grid", [(6, 8), (8, 6), (1, 1)])
def test_a_photograph_is_drawn_as_the_model_saw_it(grid, draw):
    rng = np.random.default_rng(0)
    upright = Image.fromarray(rng.integers(90, 256, (192, 256, 3), dtype=np.uint8))
    seen_lying = grid == (8, 6)  # square grids do not tell
    seen = upright.transpose(Image.Transpose.ROTATE_90) if seen_lying else upright
    sample = report([(1, *grid)], [(0, 0, 0, 0)], scores=torch.arange(grid[0] * grid[1]).float())
    found, expected = draw(photograph(upright), sample), draw(seen, sample)
    np.testing.assert_array_equal(pixels(found), pixels(expected))


# Transformers reads a file with torchvision.
@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
@pytest.mark.parametrize("name", ["qwen2-vl", "llava-onevision"])
def test_how_a_photograph_was_read_shows_in_its_grids(name, tmp_path):
    """Transformers turns what it reads from a file, but not an image that it is given."""
    setting = TokenCompressionConfig(min_visual_tokens=0, scorer="uniform")
    model, processor = load_tiny(name, token_compression=setting)
    lying, path = photograph(make_scene(1, 4, 6).image), tmp_path / "photograph.png"
    lying.save(path, exif=lying.getexif())
    turned = ImageOps.exif_transpose(lying)
    for given, seen in ((str(path), turned), (lying, plain(lying))):
        with torch.no_grad():
            model(**encode(processor, [user_turn("Where is the cat?", [given])]))
        (sample,) = model.token_compression.last.samples
        np.testing.assert_array_equal(pixels(overlay(lying, sample)), pixels(overlay(seen, sample)))


def plain(image):
    """The pixels as they are stored, without EXIF."""
    return Image.fromarray(np.asarray(image.convert("RGB")))


def test_only_kept_tokens_keep_their_brightness():
    noise = Image.fromarray(
        np.random.default_rng(0).integers(90, 256, (192, 256, 3), dtype=np.uint8)
    )
    kept = [(0, 0, 0, 0), (0, 0, 2, 3), (0, 0, 2, 4), (0, 0, 5, 7)]
    lit = pixels(overlay(noise, report([(1, 6, 8)], kept)))
    assert lit.shape == (192, 256, 3)
    for row in range(6):
        for column in range(8):
            area = inside(noise.size, (6, 8), row, column)
            if (0, 0, row, column) in kept:
                np.testing.assert_array_equal(lit[area], pixels(noise)[area])
            else:
                assert (lit[area] < 0.5 * 255).all()
                assert lit[area].mean() < 0.5 * pixels(noise)[area].mean()


def test_a_border_stands_between_kept_and_dropped_tokens_and_at_the_rim():
    white = Image.new("RGB", (128, 128), "white")
    lit = pixels(overlay(white, report([(1, 4, 4)], [(0, 0, 0, 0)])))
    kept_row = lit[16]
    assert kept_row[0].tolist() == kept_row[31].tolist() != [255, 255, 255]
    assert kept_row[16].tolist() == [255, 255, 255]
    assert kept_row[32].max() < 128


def test_a_small_image_is_enlarged_in_proportion_and_a_large_one_is_not():
    sample = report([(1, 4, 8)], [(0, 0, 0, 0)])
    assert overlay(Image.new("RGB", (16, 8)), sample).size == (256, 128)
    assert overlay(Image.new("RGB", (16, 8)), sample, token_size=2).size == (16, 8)
    assert overlay(Image.new("RGB", (800, 400)), sample).size == (800, 400)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_every_mode_are_drawn_in_rgb(mode):
    assert overlay(Image.new(mode, (64, 64)), report([(1, 2, 2)])).mode == "RGB"


def test_each_visual_and_frame_has_its_own_tokens():
    grids = [(1, 2, 3), (2, 3, 2)]
    white = Image.new("RGB", (192, 192), "white")
    sample = report(grids, [(0, 0, 1, 2), (1, 1, 2, 0)])
    places = {(0, 0): (1, 2), (1, 0): None, (1, 1): (2, 0)}
    for (visual, frame), place in places.items():
        lit = pixels(overlay(white, sample, visual, frame=frame))
        _, rows, columns = grids[visual]
        found = [
            (row, column)
            for row in range(rows)
            for column in range(columns)
            if (lit[inside(white.size, (rows, columns), row, column)] == 255).all()
        ]
        assert found == ([] if place is None else [place])


@pytest.mark.parametrize(("visual", "frame"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
@pytest.mark.parametrize("draw", [overlay, heat_map])
def test_no_such_visual_or_frame(draw, visual, frame):
    sample = report([(1, 2, 2)], scores=torch.rand(4))
    with pytest.raises(IndexError, match="has no"):
        draw(Image.new("RGB", (64, 64)), sample, visual, frame=frame)


@pytest.mark.parametrize("draw", [overlay, heat_map])
def test_tokens_that_lie_nowhere_are_not_drawn(draw):
    spans = (VisualSpan("image", torch.arange(4), ()),)
    sample = replace(report([(1, 2, 2)], scores=torch.rand(4)), visuals=spans)
    with pytest.raises(ValueError, match="Visual 0 cannot be drawn"):
        draw(Image.new("RGB", (64, 64)), sample)


def test_a_prompt_without_images_has_no_visual():
    with pytest.raises(IndexError, match="has no visual 0"):
        overlay(Image.new("RGB", (64, 64)), report([]))


@pytest.mark.parametrize(
    ("area", "box"),
    [
        ((0.25, 0.0, 0.75, 1.0), (160, 0, 320, 240)),
        ((-0.5, -1.0, 1.5, 2.0), (0, 0, 320, 240)),  # padded all around: one token shows a quarter
        ((0.1, 0.2, 0.9, 0.9), (64, 96, 320, 264)),
    ],
)
def test_a_grid_lights_the_part_of_the_image_that_it_lies_over(area, box):
    """The upper left of two by two tokens, on an image of 640 x 480 pixels."""
    grid = TokenGrid(torch.arange(4).view(1, 2, 2), area)
    span = VisualSpan("image", torch.arange(4), (grid,))
    kept = torch.tensor([True, False, False, False])
    sample = SampleReport(torch.arange(4)[kept], torch.arange(4), kept, None, (span,), 0.25)
    white = Image.new("RGB", (640, 480), "white")
    lit = (pixels(overlay(white, sample)) == 255).all(-1)
    rows, columns = lit.any(1).nonzero()[0], lit.any(0).nonzero()[0]
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    # Borders are drawn inside the token, not wider than a tenth of it.
    border = 0.1 * min(320 * (area[2] - area[0]), 240 * (area[3] - area[1]))
    for found, expected, inwards in zip(edges, box, (1, 1, -1, -1), strict=True):
        assert 0 <= (found - expected) * inwards <= border


def luma(image, grid):
    grey = pixels(image.convert("L"))
    return np.array(
        [
            [grey[inside(image.size, grid, row, column)].mean() for column in range(grid[1])]
            for row in range(grid[0])
        ]
    )


@pytest.mark.parametrize("scale", ["value", "rank"])
def test_a_higher_score_is_a_lighter_colour(scale):
    scores = torch.randperm(24, generator=torch.Generator().manual_seed(0)) / 7.0
    drawn = heat_map(
        Image.new("RGB", (192, 128), "grey"), report([(1, 4, 6)], scores=scores), scale=scale
    )
    lightness = luma(drawn, (4, 6)).flatten()
    assert lightness.argsort().tolist() == scores.argsort().tolist()


def test_ranks_tell_tokens_apart_that_one_large_score_hides():
    scores = torch.tensor([1000.0, 0.01, 0.02, 0.03])
    sample = report([(1, 2, 2)], scores=scores)
    grey = Image.new("RGB", (64, 64), "grey")
    by_value = luma(heat_map(grey, sample), (2, 2)).flatten()
    by_rank = luma(heat_map(grey, sample, scale="rank"), (2, 2)).flatten()
    assert np.ptp(by_value[1:]) < 1
    assert np.diff(by_rank[1:]).min() > 15


def test_two_visuals_of_a_prompt_share_one_scale():
    sample = report([(1, 1, 1), (1, 1, 2)], scores=torch.tensor([0.5, 0.0, 1.0]))
    grey = Image.new("RGB", (64, 64), "grey")
    first = luma(heat_map(grey, sample, 0), (1, 1)).item()
    low, high = luma(heat_map(grey, sample, 1), (1, 2)).flatten()
    assert low < first < high


def test_equal_scores_draw_one_colour():
    sample = report([(1, 2, 2)], scores=torch.full((4,), 0.3))
    assert np.ptp(luma(heat_map(Image.new("RGB", (64, 64)), sample), (2, 2))) == 0


def test_bad_arguments_of_an_image():
    image = Image.new("RGB", (64, 64))
    with pytest.raises(ValueError, match="no scores"):
        heat_map(image, report([(1, 2, 2)]))
    with pytest.raises(ValueError, match="scale"):
        heat_map(image, report([(1, 2, 2)], scores=torch.rand(4)), scale="log")
    with pytest.raises(ValueError, match="token_size"):
        overlay(image, report([(1, 2, 2)]), token_size=0)


def test_a_contact_sheet_shows_its_panels_in_order():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [
        Image.new("RGB", size, colour)
        for size, colour in zip([(100, 100), (60, 30), (40, 80)], colours, strict=True)
    ]
    sheet = contact_sheet(images, ["a", "b", "c"])
    lefts = []
    for colour, width in zip(colours, [100, 200, 50], strict=True):
        columns = (pixels(sheet) == colour).all(-1).sum(0)
        assert (columns == 100).sum() == width
        lefts.append(int(columns.argmax()))
    assert lefts == sorted(lefts)


def test_captions_and_title_make_room_for_all_their_lines():
    images = [Image.new("RGB", (200, 120))] * 2
    plain = contact_sheet(images, ["", ""])
    short = contact_sheet(images, ["one line", ""])
    long = contact_sheet(images, ["many words " * 30, "unbreakable" * 20])
    titled = contact_sheet(images, ["", ""], title="A question?\nIts answer.")
    assert plain.width == short.width == long.width == titled.width
    assert plain.height < short.height < long.height
    assert titled.height > plain.height
    ink = (pixels(long.convert("L")) < 128).any(0)
    assert not ink[-4:].any()


@pytest.mark.parametrize("columns", [1, 2, 3, 7])
def test_a_contact_sheet_breaks_into_rows(columns):
    greys = [40, 80, 120, 160, 200]
    images = [Image.new("RGB", (50, 40), (grey,) * 3) for grey in greys]
    sheet = pixels(contact_sheet(images, [""] * 5, columns=columns))[..., 0]
    corners = []
    for grey in greys:
        rows, lefts = (sheet == grey).nonzero()
        assert (sheet == grey).sum() == 50 * 40
        corners.append((rows.min(), lefts.min()))
    places = [divmod(number, columns) for number in range(5)]
    tops, lefts = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    assert [(tops.index(top), lefts.index(left)) for top, left in corners] == places


def test_a_row_of_a_contact_sheet_is_as_high_as_its_longest_caption():
    images = [Image.new("RGB", (100, 50), "red")] * 4
    long = contact_sheet(images, ["", "many words " * 20, "", ""], columns=2)
    lefts = (pixels(long)[..., 1] == 0).any(1).nonzero()[0]
    first, second = lefts[0], lefts[lefts > lefts[0] + 49][0]
    plain = contact_sheet(images, [""] * 4, columns=2)
    assert second - first > plain.height / 2


# Videos


@pytest.mark.parametrize("size", [(160, 90), (90, 160), (333, 100)])
def test_a_strip_has_a_bar_for_what_each_frame_kept(size):
    kept = [(0, 0, 0, 0), *[(0, 2, 1, column) for column in range(4)], (0, 3, 2, 4), (0, 3, 0, 0)]
    sample = report([(4, 3, 5)], kept)
    frames = [Image.new("RGB", size, "white")] * 4
    strip = pixels(frame_strip(frames, sample, frame_height=100))
    bar, ground = (0, 114, 178), (233, 233, 238)
    width = round(size[0] * 100 / size[1])
    heights = []
    lefts = [8 + number * (width + 8) for number in range(4)]
    for left in lefts:
        column = strip[:, left + width // 2]
        heights.append(int((column == bar).all(-1).sum()))
        assert (column == bar).all(-1).sum() + (column == ground).all(-1).sum() == 40
    assert heights == [10, 0, 40, 20]  # of 1, 0, 4 and 2 tokens
    # Above the bars stand the frames: of the first, the upper left token alone is lit.
    first = strip[8:108, 8 : 8 + width]
    assert (first[16, width // 10] == 255).all()
    assert first[16, 3 * width // 10].max() < 128
    assert first[50, width // 10].max() < 128


def test_a_strip_breaks_into_rows_and_has_no_bars_if_nothing_is_kept():
    frames = [Image.new("RGB", (64, 64), "white")] * 10
    sample = report([(10, 2, 2)])
    one, two = (frame_strip(frames, sample, columns=columns) for columns in (10, 5))
    assert one.width > 1.8 * two.width
    assert two.height > 1.8 * one.height
    assert not (pixels(one) == (0, 114, 178)).all(-1).any()


def test_bad_strips():
    frames, sample = [Image.new("RGB", (64, 64))] * 2, report([(2, 2, 2)])
    with pytest.raises(ValueError, match="frame_height"):
        frame_strip(frames, sample, frame_height=0)
    with pytest.raises(ValueError, match="columns"):
        frame_strip(frames, sample, columns=0)
    with pytest.raises(ValueError, match="1 frames"):
        frame_strip(frames[:1], sample)
    with pytest.raises(IndexError, match="has no visual 1"):
        frame_strip(frames, sample, 1)


# Answers


def explained(per_token):
    visuals = report([(1, 2, 4)]).visuals
    tokens = None if per_token is None else torch.tensor(per_token)
    return SampleRelevance(torch.arange(8.0), tokens, torch.arange(2), visuals)


def test_every_answer_token_has_a_heat_map_of_its_own():
    per_token = torch.zeros(2, 8)
    per_token[0, 1], per_token[1, 6] = 1.0, 0.01
    image = Image.new("RGB", (256, 128), "grey")
    sheet = answer_heat_maps([image], explained(per_token.tolist()), ["row", " 2"])
    yellow = (pixels(sheet) @ [1, 1, -1] > 300).nonzero()
    # Two panels of 256 pixels, margins of 8: row 0, column 1 of the first, row 1, column 2 of the
    # second, though that token depends on a hundredth of what the first depends on.
    for left, top in ((8 + 64, 8), (16 + 256 + 128, 8 + 64)):
        own = (yellow[1] >= left) & (yellow[1] < left + 64)
        assert own.sum() == 64 * 64
        assert yellow[0][own].min() == top
    assert len(yellow[0]) == 2 * 64 * 64


def test_a_prompts_heat_maps_are_those_of_its_images():
    sample = report([(1, 1, 2), (2, 2, 1)], scores=torch.arange(6.0))
    image, video = Image.new("RGB", (64, 64), "grey"), [Image.new("RGB", (64, 64), "white")] * 3
    sheet = pixels(prompt_heat_maps([image, video], sample))
    expected = [
        heat_map(image, sample),
        heat_map(video[0], sample, 1, frame=0),
        heat_map(video[2], sample, 1, frame=1),
    ]
    for number, panel in enumerate(expected):
        left = 8 + number * 72
        np.testing.assert_array_equal(sheet[8:72, left : left + 64], pixels(panel))


def test_bad_heat_maps_of_answers():
    image = Image.new("RGB", (64, 64))
    with pytest.raises(ValueError, match="return_per_token"):
        answer_heat_maps([image], explained(None), ["a", "b"])
    with pytest.raises(ValueError, match="1 words"):
        answer_heat_maps([image], explained([[0.0] * 8] * 2), ["a"])
    with pytest.raises(ValueError, match="2 were given"):
        prompt_heat_maps([image, image], explained([[0.0] * 8] * 2))


def test_bad_contact_sheets():
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([], [])
    with pytest.raises(ValueError, match="caption"):
        contact_sheet([Image.new("RGB", (8, 8))], ["a", "b"])
    with pytest.raises(ValueError, match="columns"):
        contact_sheet([Image.new("RGB", (8, 8))], ["a"], columns=0)
