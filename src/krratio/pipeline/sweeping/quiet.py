"""What a worker of a sweep imports first, so that it writes no log beside the sweep's own words.

A worker that ends while its heartbeat is on the way says so with a traceback, since Dask's setting
for silence ends before the worker does. Nothing is lost by it: the driver counts what comes back.
"""

import logging

for _name in ("distributed", "tornado", "tornado.application"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
