"""Cut-outs of a mesh, rendered by Mitsuba, with the shadow that it throws on its floor.

Letters: H pixels of a side; P points.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jedi_diffusion.errors import DataError, UsageError
from jedi_showroom.cutouts import FILL, SAMPLES, SIDE, TANGENT, Cutout
from jedi_showroom.views import Array

MAX_FACES = 400_000
_SHADOW_POINTS = 40_000
_SHADOW_FADE = 0.3  # of the subject's height, above which it hardly shades its floor
_BRIGHT = 0.62  # linear value that the 80th percentile of a cut-out is brought to, at most


@dataclass(frozen=True)
class View:
    """A camera direction in radians: `azimuth` 0 in front of the subject, `elevation` above its floor."""

    azimuth: float
    elevation: float


def random_view(rng: np.random.Generator) -> View:
    """Mostly from the front (within 65 degrees), one in five from anywhere; 5 to 32 degrees up."""
    half = np.pi if rng.random() < 0.2 else np.radians(65)
    return View(float(rng.uniform(-half, half)), float(np.radians(5 + 27 * rng.random() ** 1.4)))


class Mesh:
    """An OBJ model, ready to be rendered. Raises DataError for a file without faces, or with too many."""

    def __init__(self, path: Path) -> None:
        mitsuba, trimesh = _mitsuba(), _needed("trimesh")
        try:
            scene = trimesh.load(path, force="scene", process=False)
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise DataError(f"{path} is no usable OBJ model: {error}") from error
        parts = [part for part in scene.dump() if len(getattr(part, "faces", ()))]
        faces = sum(len(part.faces) for part in parts)
        if not 0 < faces <= MAX_FACES:
            raise DataError(f"{path} has {faces} faces; 1 to {MAX_FACES} can be rendered.")
        self.shapes = [_shape(mitsuba, part) for part in parts]
        corners = np.concatenate([part.vertices[part.faces.ravel()] for part in parts])
        self.low, self.high = corners.min(0), corners.max(0)
        self.corners = corners
        whole = trimesh.util.concatenate([trimesh.Trimesh(p.vertices, p.faces, process=False) for p in parts])
        self.surface = trimesh.sample.sample_surface(whole, _SHADOW_POINTS, seed=0)[0]

    def render(self, view: View, light: Array, rng: np.random.Generator) -> Cutout:
        """Show the mesh by `light`, a panorama (h, 2h, 3) of linear radiance, turned by chance."""
        mitsuba = _mitsuba()
        position, basis = self._camera(view)
        transform = mitsuba.ScalarTransform4f
        target = position + basis[2]
        scene: dict[str, Any] = {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 3, "hide_emitters": True},
            "sensor": {
                "type": "perspective",
                "fov": float(np.degrees(2 * np.arctan(TANGENT))),
                "to_world": transform().look_at(
                    origin=position.tolist(), target=target.tolist(), up=[0, 1, 0]
                ),
                "film": {
                    "type": "hdrfilm",
                    "width": SIDE,
                    "height": SIDE,
                    "pixel_format": "rgba",
                    "component_format": "float32",
                },
                "sampler": {
                    "type": "multijitter",
                    "sample_count": SAMPLES,
                    "seed": int(rng.integers(1 << 30)),
                },
            },
            "light": {
                "type": "envmap",
                "bitmap": mitsuba.Bitmap(np.ascontiguousarray(light, dtype=np.float32)),
                "to_world": transform().rotate([0, 1, 0], float(rng.uniform(0, 360))),
            },
        }
        scene |= {f"shape-{number}": shape for number, shape in enumerate(self.shapes)}
        image = np.array(mitsuba.render(mitsuba.load_dict(scene)))
        alpha = np.clip(image[..., 3], 0, 1)
        colour = np.clip(image[..., :3], 0, None) / np.maximum(alpha, 1e-3)[..., None]
        return Cutout(
            rgba=_developed(colour, alpha),
            shadow=self._shadow(position, basis, rng),
            azimuth=view.azimuth,
            elevation=view.elevation,
            tangent=TANGENT,
        )

    def _camera(self, view: View) -> tuple[Array, Array]:
        """Return the position (3,) and the basis (3, 3), rows right, up and forward, that show the whole
        mesh.
        """
        rise, turn = view.elevation, view.azimuth
        away = np.array([np.sin(turn) * np.cos(rise), np.sin(rise), np.cos(turn) * np.cos(rise)])
        right = np.array([np.cos(turn), 0.0, -np.sin(turn)])
        basis = np.stack([right, np.cross(away, right), -away])
        centre = (self.low + self.high) / 2
        seen = (self.corners - centre) @ basis.T
        # |x| <= fill * tangent * (distance + z) for every corner, horizontally and vertically.
        reach = np.abs(seen[:, :2]).max(axis=1) / (FILL * TANGENT)
        distance = float((reach - seen[:, 2]).max())
        return centre + distance * away, basis

    def _shadow(self, position: Array, basis: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the floor's shading (H, H), 255 where it is dark: surface points dropped along the light."""
        points = self.surface
        height = points[:, 1] - self.low[1]
        slant = rng.uniform(-0.3, 0.3, 2)
        dropped = points.copy()
        dropped[:, 1] = self.low[1]
        dropped[:, 0] += slant[0] * height
        dropped[:, 2] += slant[1] * height
        seen = (dropped - position) @ basis.T
        place = seen[:, :2] / (seen[:, 2:] * TANGENT)
        columns = ((place[:, 0] + 1) / 2 * SIDE).astype(int)
        rows = ((1 - place[:, 1]) / 2 * SIDE).astype(int)
        inside = (columns >= 0) & (columns < SIDE) & (rows >= 0) & (rows < SIDE) & (seen[:, 2] > 0)
        size = float(self.high[1] - self.low[1]) + 1e-9
        weight = np.exp(-height / (_SHADOW_FADE * size))
        floor = np.zeros((SIDE, SIDE))
        np.add.at(floor, (rows[inside], columns[inside]), weight[inside])
        soft = 0.6 * blurred(floor, 2.0) + 0.4 * blurred(floor, 6.0)
        # Saturating: four points' worth of full weight in a pixel shade most of it.
        return (255 * (1 - np.exp(-soft / 4))).astype(np.uint8)


def blurred(image: Array, sigma: float) -> Array:
    """Return the image smoothed by a Gaussian of `sigma` pixels."""
    smooth: Array = _needed("scipy.ndimage").gaussian_filter(image, sigma)
    return smooth


def _developed(colour: Array, alpha: Array) -> NDArray[np.uint8]:
    """Linear radiance (H, H, 3) and coverage (H, H) to sRGB with alpha, exposed for the subject."""
    solid = alpha > 0.5
    if not solid.any():
        return np.zeros((*alpha.shape, 4), np.uint8)
    bright = float(np.percentile(colour[solid].max(axis=-1), 80))
    exposed = colour * (_BRIGHT / max(bright, 1e-4))
    exposed = exposed * (1 + exposed / 4) / (1 + 0.5 * exposed)  # a soft shoulder above the exposure
    encoded = np.clip(exposed, 0, 1) ** (1 / 2.2)
    return (np.concatenate([encoded, alpha[..., None]], axis=-1) * 255).round().astype(np.uint8)


def _shape(mitsuba: Any, part: Any) -> Any:
    """One mesh of a trimesh scene as a Mitsuba shape with its material."""
    coordinates = getattr(part.visual, "uv", None)
    textured = coordinates is not None and len(coordinates) == len(part.vertices)
    properties = mitsuba.Properties()
    properties["material"] = mitsuba.load_dict(
        _material(mitsuba, getattr(part.visual, "material", None), textured)
    )
    mesh = mitsuba.Mesh(
        "part", len(part.vertices), len(part.faces), has_vertex_texcoords=textured, props=properties
    )
    values = mitsuba.traverse(mesh)
    values["vertex_positions"] = np.ravel(part.vertices).astype(np.float32)
    values["faces"] = np.ravel(part.faces).astype(np.uint32)
    if coordinates is not None and textured:  # OBJ counts v upwards, Mitsuba's bitmaps downwards
        flipped = np.stack([coordinates[:, 0], 1 - coordinates[:, 1]], axis=1)
        values["vertex_texcoords"] = np.ravel(flipped).astype(np.float32)
    values.update()
    return mesh


def _material(mitsuba: Any, material: Any, textured: bool) -> dict[str, Any]:
    """Return a principled material of the OBJ material's colour or texture; transparent parts let light
    through.
    """
    diffuse = np.asarray(getattr(material, "diffuse", (180, 180, 180, 255)), dtype=float) / 255
    base: dict[str, Any] = {"type": "rgb", "value": (diffuse[:3] ** 2.2).tolist()}
    opacity: Any = float(diffuse[3]) if len(diffuse) > 3 else 1.0
    picture = getattr(material, "image", None)
    if picture is not None and textured:
        pixels = np.asarray(picture.convert("RGBA"))
        base = {"type": "bitmap", "bitmap": mitsuba.Bitmap(np.ascontiguousarray(pixels[..., :3]))}
        if pixels[..., 3].min() < 128:
            alpha = mitsuba.Bitmap(np.ascontiguousarray(pixels[..., 3:]))
            opacity = {"type": "bitmap", "bitmap": alpha, "raw": True}
    glossy = float(np.mean(np.asarray(getattr(material, "specular", (60, 60, 60)), dtype=float)[:3])) / 255
    surface: dict[str, Any] = {
        "type": "twosided",
        "surface": {
            "type": "principled",
            "base_color": base,
            "roughness": 0.65 - 0.4 * glossy,
            "specular": 0.3 + 0.4 * glossy,
        },
    }
    if opacity == 1.0:
        return surface
    if isinstance(opacity, float):
        opacity = max(opacity, 0.25)  # glass stays visible
    return {"type": "mask", "opacity": opacity, "surface": surface}


def load_bitmap(path: Path) -> Array:
    """Return an EXR file's channels, (h, w, C) float."""
    return np.asarray(_mitsuba().Bitmap(str(path)), dtype=np.float32)


def _mitsuba() -> Any:
    mitsuba = _needed("mitsuba")
    if mitsuba.variant() is None:
        mitsuba.set_variant("scalar_rgb")
        mitsuba.set_log_level(mitsuba.LogLevel.Error)
    return mitsuba


def _needed(name: str) -> Any:
    """Import a package of the extra `showroom`. Raises UsageError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"The showroom needs {name}: pip install 'jedi-diffusion[showroom]'") from error
