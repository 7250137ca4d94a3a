"""How somebody looks: body, hair, face, eyes, mouth, hat; sizes follow the fine traits of the look."""

import math
from dataclasses import dataclass

from playground.mini_world.palette import HAIR, IRISES, PAINTS, SKIN_TONES, Colour, shade
from playground.mini_world.pen import Pen, arc, oval
from playground.mini_world.world import Look, View

INK: Colour = (40, 30, 32)
WHITE: Colour = (252, 252, 250)
SQUARENESS = {"round": 2.0, "oval": 2.1, "square": 3.6}
WIDTHS = {"round": 0.50, "oval": 0.43, "square": 0.47}
HEIGHTS = {"round": 0.53, "oval": 0.64, "square": 0.57}


@dataclass(frozen=True)
class Face:
    """Measures of a head in face units, from the attributes and traits of a look."""

    width: float
    height: float
    squareness: float
    eye_x: float
    eye_y: float
    eye: float
    skin: Colour
    hair: Colour


def measure(look: Look) -> Face:
    """The measures of a look."""
    width = WIDTHS[look.face] * (1 + 0.13 * look.trait("face_width"))
    return Face(
        width=width,
        height=HEIGHTS[look.face] * (1 + 0.10 * look.trait("face_height")),
        squareness=SQUARENESS[look.face],
        eye_x=width * (0.46 + 0.11 * look.trait("eye_gap")),
        eye_y=-0.08 + 0.06 * look.trait("eye_height"),
        eye=0.105 * (1 + 0.30 * look.trait("eye_size")),
        skin=SKIN_TONES[look.skin],
        hair=HAIR[look.hair_colour],
    )


def draw_body(pen: Pen, look: Look, view: View) -> None:
    """Long hair at the back, neck and shirt."""
    face = measure(look)
    if look.hair_style == "long":
        volume = 1 + 0.16 * look.trait("hair_volume")
        pen.ellipse(0, 0.14, (face.width * 1.34 * volume, 0.80), shade(face.hair, 84), squareness=2.8)
    pen.polygon([(-0.17, 0.3), (0.17, 0.3), (0.2, 0.9), (-0.2, 0.9)], shade(face.skin, 82))
    shirt = PAINTS[view.shirt]
    pen.ellipse(
        0, 1.16, (0.82, 0.44), shade(shirt, 74) if view.shirt != "black" else (70, 70, 78), squareness=2.6
    )
    pen.ellipse(0, 1.18, (0.79, 0.42), shirt, squareness=2.6)
    pen.ellipse(0, 0.76, (0.2, 0.1), shade(face.skin, 82))


def draw_head(pen: Pen, look: Look, view: View) -> None:
    """Everything from the ears to the hat, back to front."""
    face = measure(look)
    draw_back_hair(pen, look, face)
    ear = 0.10 * (1 + 0.45 * look.trait("ear_size"))
    for side in (-1, 1):
        pen.ellipse(side * face.width, 0.02, (ear, ear * 1.3), shade(face.skin, 78))
        pen.ellipse(side * face.width, 0.02, (ear * 0.72, ear), face.skin)
    pen.ellipse(
        0, 0, (face.width + 0.018, face.height + 0.018), shade(face.skin, 74), squareness=face.squareness
    )
    pen.ellipse(0, 0, (face.width, face.height), face.skin, squareness=face.squareness)
    draw_mark(pen, look, face)
    draw_beard(pen, look, face)
    draw_nose(pen, look, face)
    draw_mouth(pen, look, view, face)
    draw_eyes(pen, look, face)
    draw_front_hair(pen, look, face)
    draw_brows(pen, look, face)
    draw_glasses(pen, look, face)
    draw_hat(pen, view, face)


def draw_back_hair(pen: Pen, look: Look, face: Face) -> None:
    """Hair that stands out behind the head."""
    volume = 1 + 0.16 * look.trait("hair_volume")
    if look.hair_style == "curly":
        dark = shade(face.hair, 84)
        for step in range(11):
            angle = math.radians(150 + 240 * step / 10)
            x, y = face.width * 1.06 * volume * math.cos(angle), -0.14 + face.height * 0.94 * math.sin(angle)
            pen.ellipse(x, y, (0.19 * volume, 0.19 * volume), dark)
            pen.ellipse(x, y, (0.16 * volume, 0.16 * volume), face.hair)
    elif look.hair_style == "spiky":
        points = []
        for step in range(15):
            angle = math.radians(185 + 170 * step / 14)
            length = (1.42 * volume if step % 2 else 1.0) * face.height
            points.append(
                (face.width / face.height * 0.98 * length * math.cos(angle), -0.05 + length * math.sin(angle))
            )
        pen.polygon(points, face.hair)


def draw_front_hair(pen: Pen, look: Look, face: Face) -> None:
    """The hair over the forehead."""
    if look.hair_style == "bald":
        pen.ellipse(-face.width * 0.35, -face.height * 0.66, (0.09, 0.05), shade(face.skin, 112))
        return
    volume = 1 + 0.16 * look.trait("hair_volume")
    top = oval(0, 0, (face.width * 1.05, face.height * 1.07 * (volume + 1) / 2), squareness=face.squareness)
    fringe = -face.height * (0.42 if look.hair_style in ("long", "curly") else 0.52)
    crown = [(x, y) for x, y in top if y < fringe]
    pen.polygon(sorted(crown, key=lambda point: math.atan2(point[1] - fringe, point[0])), face.hair)
    if look.hair_style == "long":
        for side in (-1, 1):
            pen.ellipse(
                side * face.width * 0.98, 0.05, (0.13 * volume, face.height * 0.9), face.hair, squareness=2.4
            )


def draw_mark(pen: Pen, look: Look, face: Face) -> None:
    """A mole, a scar or freckles."""
    if look.mark == "mole":
        pen.ellipse(face.width * 0.55, 0.22, (0.04, 0.04), (62, 30, 24))
    elif look.mark == "scar":
        colour = (206, 84, 84) if look.skin != "dark" else (190, 120, 110)
        pen.line([(-face.width * 0.72, 0.08), (-face.width * 0.38, 0.30)], 0.035, colour)
        for step in (0.3, 0.6):
            x, y = -face.width * (0.72 - 0.34 * step), 0.08 + 0.22 * step
            pen.line([(x - 0.03, y + 0.045), (x + 0.03, y - 0.045)], 0.022, colour)
    elif look.mark == "freckles":
        for side in (-1, 1):
            for dx, dy in ((0, 0), (0.09, 0.03), (-0.08, 0.035), (0.02, 0.085)):
                pen.ellipse(side * face.width * 0.52 + dx, 0.12 + dy, (0.021, 0.021), shade(face.skin, 60))


def draw_beard(pen: Pen, look: Look, face: Face) -> None:
    """A moustache or a full beard in the hair's colour."""
    if look.beard == "full":
        lower = [
            (x, y)
            for x, y in oval(0, 0, (face.width, face.height * 1.05), squareness=face.squareness)
            if y > 0.14
        ]
        pen.polygon(sorted(lower, key=lambda point: math.atan2(point[1] - 0.14, point[0])), face.hair)
        pen.ellipse(0, 0.10, (face.width * 0.66, 0.10), face.skin)
        pen.ellipse(0, 0.37, (0.17, 0.09), shade(face.skin, 96))
    if look.beard != "none":
        for side in (-1, 1):
            pen.ellipse(side * 0.085, 0.255, (0.125, 0.05), shade(face.hair, 88))


def draw_nose(pen: Pen, look: Look, face: Face) -> None:
    """A nose as long and as wide as the traits say."""
    length = 0.15 * (1 + 0.5 * look.trait("nose_length"))
    width = 0.062 * (1 + 0.5 * look.trait("nose_width"))
    pen.polygon(
        [(0, face.eye_y + 0.06), (width, 0.06 + length), (-width, 0.06 + length)], shade(face.skin, 80)
    )
    pen.ellipse(0, 0.06 + length, (width * 1.15, 0.04), shade(face.skin, 80))


def draw_mouth(pen: Pen, look: Look, view: View, face: Face) -> None:
    """Happy, sad or surprised."""
    half = 0.155 * (1 + 0.35 * look.trait("mouth_width"))
    lips = (160, 44, 52)
    if view.expression == "happy":
        smile = arc(0, 0.31, (half, 0.13), 0, 180)
        pen.polygon(smile, lips)
        pen.polygon(arc(0, 0.315, (half * 0.8, 0.05), 0, 180), WHITE)
    elif view.expression == "sad":
        pen.line(arc(0, 0.44, (half, 0.10), 190, 350), 0.042, lips)
    else:
        pen.ellipse(0, 0.38, (half * 0.58, 0.085), lips)
        pen.ellipse(0, 0.385, (half * 0.36, 0.055), (70, 14, 20))


def draw_eyes(pen: Pen, look: Look, face: Face) -> None:
    """White, iris and pupil."""
    for side in (-1, 1):
        x, y = side * face.eye_x, face.eye_y
        pen.ellipse(x, y, (face.eye * 1.22, face.eye * 1.05), INK)
        pen.ellipse(x, y, (face.eye * 1.08, face.eye * 0.92), WHITE)
        pen.ellipse(x, y, (face.eye * 0.70, face.eye * 0.74), IRISES[look.eye_colour])
        pen.ellipse(x, y, (face.eye * 0.30, face.eye * 0.32), INK)
        pen.ellipse(x - face.eye * 0.22, y - face.eye * 0.28, (face.eye * 0.16, face.eye * 0.16), WHITE)


def draw_brows(pen: Pen, look: Look, face: Face) -> None:
    """Brows as thick and as slanted as the traits say."""
    thickness = 0.046 * (1 + 0.6 * look.trait("brow_thickness"))
    slant = 0.07 * look.trait("brow_angle")
    colour = shade(face.hair, 70) if look.hair_style != "bald" else shade(face.skin, 45)
    y = face.eye_y - face.eye * 1.22 - 0.055
    for side in (-1, 1):
        inner, outer = side * (face.eye_x - 0.11), side * (face.eye_x + 0.12)
        pen.line([(inner, y + slant), (outer, y - slant)], thickness, colour)


def draw_glasses(pen: Pen, look: Look, face: Face) -> None:
    """Round or square frames."""
    if look.glasses == "none":
        return
    radius = max(0.165, face.eye * 1.5)
    reach = min(radius, face.eye_x * 0.94)
    corner = 2.0 if look.glasses == "round" else 7.0
    frame = (34, 34, 40) if look.glasses == "round" else (186, 32, 60)
    for side in (-1, 1):
        outline = oval(
            side * face.eye_x,
            face.eye_y,
            (reach, radius * (1.0 if corner == 2.0 else 0.82)),
            squareness=corner,
        )
        pen.line([*outline, outline[0], outline[1]], 0.04, frame)
        pen.line(
            [(side * (face.eye_x + reach), face.eye_y), (side * face.width * 1.02, face.eye_y - 0.03)],
            0.035,
            frame,
        )
    pen.line([(-face.eye_x + reach, face.eye_y), (face.eye_x - reach, face.eye_y)], 0.035, frame)


def draw_hat(pen: Pen, view: View, face: Face) -> None:
    """A cap with a visor or a top hat with a band."""
    if view.hat == "none":
        return
    paint = PAINTS[view.hat_colour]
    edge = shade(paint, 70) if view.hat_colour != "black" else (76, 76, 84)
    brim, wide = -face.height * 0.62, face.width * 1.12
    if view.hat == "cap":
        dome = [(-wide, brim), *arc(0, brim, (wide, 0.42), 180, 360), (wide, brim)]
        pen.polygon(dome, edge)
        pen.polygon([(-wide * 0.95, brim - 0.02), *arc(0, brim - 0.02, (wide * 0.95, 0.37), 180, 360)], paint)
        pen.ellipse(wide * 0.55, brim, (wide * 0.85, 0.065), edge)
    else:
        pen.polygon(
            [(-wide * 0.78, brim), (-wide * 0.86, -1.06), (wide * 0.86, -1.06), (wide * 0.78, brim)], edge
        )
        pen.polygon(
            [(-wide * 0.73, brim), (-wide * 0.80, -1.03), (wide * 0.80, -1.03), (wide * 0.73, brim)], paint
        )
        band = (250, 250, 248) if view.hat_colour in ("black", "purple", "blue") else INK
        pen.polygon(
            [
                (-wide * 0.79, brim),
                (-wide * 0.80, brim - 0.11),
                (wide * 0.80, brim - 0.11),
                (wide * 0.79, brim),
            ],
            band,
        )
        pen.ellipse(0, brim, (wide * 1.15, 0.06), edge)
