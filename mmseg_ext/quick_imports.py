"""Commands import this module first, which makes their other imports faster.

While PyTorch and the host are imported, searching for unreachable objects takes much of the
time. Nothing is searched until the command begins (``errors.errors_in_a_line``).
"""

import gc

gc.disable()
