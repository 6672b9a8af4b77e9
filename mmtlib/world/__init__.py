"""The embedded world: three domains of drawn pedestrians, with their dials, people, walk, places and cameras."""

from mmtlib.world.generation import (
    DOMAINS,
    OCCLUDERS,
    SCALES,
    VIEWS,
    World,
    contact_sheet,
    generate,
    pictures,
    render,
    world,
)

__all__ = [
    "DOMAINS",
    "OCCLUDERS",
    "SCALES",
    "VIEWS",
    "World",
    "contact_sheet",
    "generate",
    "pictures",
    "render",
    "world",
]
