"""Products with a sampler's weights, and what comes right after them: in native code, oneDNN or torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

from shoal.nets.panels import WIDTH, in_panels, panel_product

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.nets.panels import Finish

ONEDNN = {"keep": "none", "swish": "swish", "times": "mul", "plus": "add"}
"""What comes after a product, as oneDNN calls it."""


class Product:
    """x w^T + b with fixed weights [out, in], in torch."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """On any device."""
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] to [n, out]."""
        return self.finished(x, "keep", None)

    def activated(self, x: Tensor) -> Tensor:
        """As called, through x sigmoid(x)."""
        return self.finished(x, "swish", None)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """[n, in] to [n, out], multiplied by `other` [n, out]."""
        return self.finished(x, "times", other)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """[n, in] to [n, out], with `other` [n, out] added."""
        return self.finished(x, "plus", other)

    def finished(self, x: Tensor, finish: Finish, other: Tensor | None) -> Tensor:
        """The product, and what is named."""
        made = F.linear(x, self.weight, self.bias)
        if finish == "swish":
            return F.silu(made)
        if other is not None:
            return made.mul_(other) if finish == "times" else made.add_(other)
        return made


class NativeProduct(Product):
    """On one thread of a CPU: weights lie in panels, and a row's bits do not depend on other rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Of weights in float32, of which it keeps its own copy alone."""
        super().__init__(weight.new_empty(0), bias)
        self._panels = in_panels(weight.contiguous().numpy())
        self._bias = None if bias is None else bias.numpy()

    def finished(self, x: Tensor, finish: Finish, other: Tensor | None) -> Tensor:
        """The product, and what is named."""
        out = x.new_empty(len(x), len(self._panels) * WIDTH)
        beside = None if other is None else other.numpy()
        panel_product(x.numpy(), self._panels, self._bias, beside, finish, out.numpy())
        return out


class PackedProduct(Product):
    """On several threads of a CPU: weights lie as oneDNN reads them."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        """`rows`: how many x usually has. It keeps its own copy alone."""
        super().__init__(weight.new_empty(0), bias)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

    def finished(self, x: Tensor, finish: Finish, other: Tensor | None) -> Tensor:
        """The product, and what is named."""
        product, after = torch.ops.mkldnn._linear_pointwise, ONEDNN[finish]
        if other is None:
            made = product(x, self._packed, self.bias, after, [], "")
        else:
            made = product.binary(x, other, self._packed, self.bias, after)
        return cast("Tensor", made)


def product_of(weight: Tensor, bias: Tensor | None, *, rows: int) -> Product:
    """The fastest product with these weights where they lie, on as many threads as torch has now.

    Args:
        weight: [out, in].
        bias: [out].
        rows: how many are usually multiplied at once.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return Product(weight, bias)
    if torch.get_num_threads() == 1 and len(weight) % WIDTH == 0:
        return NativeProduct(weight, bias)
    if torch.backends.mkldnn.is_available():
        return PackedProduct(weight, bias, rows)
    return Product(weight, bias)
