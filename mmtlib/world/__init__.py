"""The embedded world: three domains of drawn pedestrians, with their dials, people, walk, places and cameras."""

from mmtlib.world.generation import generate
from mmtlib.world.knobs import DOMAINS
from mmtlib.world.worlds import World, pictures, render, world
