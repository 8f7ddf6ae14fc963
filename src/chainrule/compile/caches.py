"""What plans count on of a processor's caches: sizes that hold, or nearly, for every machine that the library is for.

Knows numbers, and measures nothing: that is for `machine.py`. A plan that counts on less than there is loses little.
"""

from chainrule.core.alignment import ALIGNMENT

LINE = ALIGNMENT  # bytes that are read, and are taken from other cores, at a time
PAGE = 4096  # bytes of an address translation; addresses so far apart meet in one set of a first cache
FIRST = 32 * 1024  # bytes of a core's first cache
WAYS = 8  # lines of it for addresses a page apart
SECOND = 256 * 1024  # bytes of a core's second cache that may be counted on: half of what there is at least
