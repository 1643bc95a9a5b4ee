"""Commands import this module first: PyTorch and the host then import in a sixth less time.

Until the command begins (``errors.errors_in_a_line``), nothing looks for unreachable objects.
"""

import gc

gc.disable()
