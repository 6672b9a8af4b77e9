import importlib
import pkgutil

from numba.core.dispatcher import Dispatcher

import mmtlib
from mmtlib.warm_up import warm_up


def test_warm_up_compiles_every_loop_of_the_package():
    warm_up()
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(mmtlib.__path__, "mmtlib.")]
    loops = [v for m in modules for v in vars(m).values() if isinstance(v, Dispatcher)]
    assert loops, "no compiled loop is left: then warm_up has nothing to do"
    idle = {loop.__name__ for loop in loops if not loop.signatures}
    assert idle <= {
        "_insert",
        "_squared_distance",
    }  # parts of other loops, without a life of their own in the cache
