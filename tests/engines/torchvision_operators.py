"""Declares torchvision's operators, which the engines' packages import and nobody here calls.

Its wheel is built for CUDA, so that its library does not load beside a CPU build of PyTorch, and importing the package
fails where it describes operators that are not there.
"""
import torch

library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms", "roi_align", "qroi_align", "_roi_align_backward", "roi_pool",
             "_roi_pool_backward", "ps_roi_align",
             "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d",
             "_deform_conv2d_backward"):
    if not hasattr(torch.ops.torchvision, name):
        library.define(f"{name}(Tensor input) -> Tensor")
