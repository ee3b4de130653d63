"""Which tensors make a layer, by their names alone."""


def layer_of(name: str) -> str:
    """Return the layer that a tensor belongs to.

    Networks number their blocks: the layer is the name up to its first number (`blocks.3` of
    `blocks.3.attn.qkv.weight`, `layer1.0` of `layer1.0.conv1.weight`). Where there is none it is
    the module (`head` of `head.weight`), or the tensor itself (`cls_token`).
    """
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return ".".join(parts[:-1]) or name
