"""A network as a graph of its steps, where it can be seen as one."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, fx, nn


class _Tracer(fx.Tracer):
    """Takes modules without parts as one step, whoever wrote them: fewer go wrong in tracing."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not list(m.children()) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule | None:
    """Return a network as a graph that shares its weights, None where there is none to be had.

    A network whose steps depend on the data has no such graph. Nor is one made where hooks are
    set: those of modules that a graph goes around would not be called.
    """
    if any(_has_hooks(module) for module in model.modules()):
        return None
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # tracing runs the network's own code, on what is no tensor
        return None


def layers(graph: fx.GraphModule) -> dict[fx.Node, nn.Module]:
    """Return the modules that a graph calls, by the step that does; those called once only."""
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    modules = {node: graph.get_submodule(str(node.target)) for node in calls}
    times = Counter(id(module) for module in modules.values())
    return {node: module for node, module in modules.items() if times[id(module)] == 1}


def weights_of(graph: fx.GraphModule, node: fx.Node) -> Iterator[Tensor]:
    """Give the tensors that a step computes with beside its inputs."""
    if node.op == "call_module":
        yield from graph.get_submodule(str(node.target)).state_dict(keep_vars=True).values()
    elif node.op == "get_attr":
        value = graph
        for name in str(node.target).split("."):
            value = getattr(value, name)
        if isinstance(value, Tensor):
            yield value


def beginning(graph: fx.GraphModule, last: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the steps that lead from a graph's inputs to some of its values, as a tuple."""
    steps = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    needed = _leading_to(last, known=())
    for node in graph.graph.nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = steps.node_copy(node, copies.__getitem__)
    steps.output(tuple(copies[node] for node in last))
    return fx.GraphModule(graph, steps)


def ending(graph: fx.GraphModule, first: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the steps that lead from some of a graph's values, its new inputs, to its output."""
    steps = fx.Graph()
    copies = {node: steps.placeholder(node.name) for node in first}
    output = next(iter(graph.graph.find_nodes(op="output")))
    needed = _leading_to([output], known=first)
    for node in graph.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = steps.node_copy(node, copies.__getitem__)
    return fx.GraphModule(graph, steps)


def _leading_to(nodes: Iterable[fx.Node], known: Iterable[fx.Node]) -> set[fx.Node]:
    found = set(known)
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
