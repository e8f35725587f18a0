"""Expert colours: eight hues that colour-blind readers can tell apart, then evenly spread ones for larger models.

Every colour carries the same dark text at a contrast of at least 4.5 to 1, in light and dark pages alike.
Try it: expert_colour(3), palette_css(8)
"""

import math

CELL_INK = "#16181b"

# Okabe and Ito's set, lightened until dark text reads on all of them.
BASE_COLOURS = ("#e8a33d", "#6db6e8", "#3fae8c", "#efe06a", "#5b8fd0", "#e07b53", "#d69ac2", "#b4b8bf")

# Experts that are told apart by colour.
MAX_COLOURED = 16

# Classes in the style sheet. Experts beyond them share colours; the number in the cell always tells them apart.
MAX_COLOURS = 256

_GOLDEN_ANGLE = 137.508
_LIGHTNESS = (0.80, 0.70, 0.89)


def expert_colour(expert: int) -> str:
    """The colour of an expert as #rrggbb."""
    expert %= MAX_COLOURS
    if expert < len(BASE_COLOURS):
        return BASE_COLOURS[expert]
    # Neighbours differ in hue by the golden angle and in lightness, so that next to each other they never look alike.
    return _oklch(_LIGHTNESS[expert % 3], 0.09, (expert * _GOLDEN_ANGLE) % 360)


def shade_of(expert: int, experts: int) -> int:
    """The number of an expert's colour among `experts`: its own while they are few; of many, that of its family, eight
    runs of neighbouring numbers, for nobody tells dozens of colours apart. The number beside it is what tells."""
    return expert if experts <= MAX_COLOURED else expert * len(BASE_COLOURS) // experts


def palette_css(experts: int = MAX_COLOURS) -> str:
    """One class per expert (.x0, .x1, …) that sets the variable --c."""
    return "\n".join(f".x{expert}{{--c:{expert_colour(expert)}}}" for expert in range(experts))


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two #rrggbb colours, 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """Björn Ottosson's OKLCH to sRGB: equal steps look equal, so lightness here is lightness to the eye."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    channels = []
    for value in linear:
        value = min(max(value, 0.0), 1.0)
        value = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
        channels.append(round(value * 255))
    return "#{:02x}{:02x}{:02x}".format(*channels)
