"""A network as a graph of its steps, where it can be seen as one."""

from collections import Counter

from torch import fx, nn


def trace(model: nn.Module) -> fx.GraphModule | None:
    """Return a network as a graph that shares its weights, None where there is none to be had.

    A network whose steps depend on the data has no such graph. Nor is one made where hooks are
    set: those of modules that a graph goes around would not be called.
    """
    if any(_has_hooks(module) for module in model.modules()):
        return None
    try:
        return fx.symbolic_trace(model)
    except Exception:
        return None


def layers(graph: fx.GraphModule) -> dict[fx.Node, nn.Module]:
    """Return the modules that a graph calls, by the step that does; those called once only."""
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    modules = {node: graph.get_submodule(str(node.target)) for node in calls}
    times = Counter(id(module) for module in modules.values())
    return {node: module for node, module in modules.items() if times[id(module)] == 1}


def _has_hooks(module: nn.Module) -> bool:
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
    )
    return any(hooks)
