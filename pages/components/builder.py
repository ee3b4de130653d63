"""The form of a soup: recipe, candidates, parameters and tensors.

The session and the URL hold the choices, which so survive a visit to another page and a reload.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import streamlit as st

from pages.components import scores
from pages.components.display import listed, plain
from pages.components.state import View
from soupcore import RECIPES, RecipeError, SweepError
from soupcore.recipes import Choice, Number, Parameter, Recipe, Switch
from soupcore.recipes.spec import GROUPS
from soupcore.stored_soups import StoredSoup
from soupcore.sweeps import TensorRule
from soupcore.sweeps.tensor_rule import ALL, BUT_EMBEDDINGS, BUT_HEAD

MANUAL = "manual"
BASIN, SELECTED, EVERY, CUSTOM = "basin", "selected", "all", "custom"

_COLUMNS = 3  # of widgets
_NAMED = 3  # candidates outside the main basin that are listed by name
_PATTERN = "pattern"
_FORM_KEYS = ("tensors-", "share-")  # prefixes of the keys of its widgets
_TAKES = {
    ALL: "All",
    BUT_HEAD: "All but the head",
    BUT_EMBEDDINGS: "All but the embeddings",
    _PATTERN: "Pattern",
}

#: Display names of choices.
_CHOICES = {"lbfgs": "L-BFGS", "adamw": "AdamW", "cma": "CMA-ES", "ties": "TIES", ">=": "≥"}


def choose_recipe(view: View) -> str:
    """Let the user choose a recipe, from three groups; return its name."""
    default = "greedy" if view.has_task else "uniform"
    current = st.session_state["recipe"]
    current = current if current in RECIPES or current == MANUAL else default
    titles = {name: recipe.title for name, recipe in RECIPES.items()} | {MANUAL: "Manual"}
    grouped = {
        group: [name for name, recipe in RECIPES.items() if recipe.group == group]
        for group in GROUPS
    }
    grouped[GROUPS[0]].append(MANUAL)
    st.session_state["recipe-shown"] = current
    with st.container(horizontal=True, key="recipes"):
        for group, names in grouped.items():
            key = f"recipe-{group}-{current}"

            def choose(key: str = key) -> None:
                # The browser may still send controls of earlier runs, while a run is cut short.
                is_latest = st.session_state["recipe-shown"] == current
                if is_latest and st.session_state.get(key, current) != current:
                    st.session_state["recipe"] = st.session_state[key]

            st.segmented_control(
                group,
                names,
                default=current if current in names else None,
                format_func=titles.__getitem__,
                required=current in names,
                width="content",
                key=key,
                on_change=choose,
            )
    return current


def choose_candidates(view: View, soups: Mapping[str, StoredSoup]) -> list[str]:
    """Let the user choose the candidates: the main basin, the selected, all, or by name.

    Args:
        view: The view.
        soups: Soups that are candidates too, by their names as ingredients.

    Returns:
        The names, in the order of the sweep; the soups last.
    """
    every, basin = view.sweep.names(), _main_basin(view)
    sets = {SELECTED: st.session_state["selection"], EVERY: every}
    if basin:
        sets = {BASIN: basin} | sets
    sets = {name: names for name, names in sets.items() if names}
    chosen = st.session_state["candidates"]
    if chosen not in (*sets, CUSTOM):
        chosen = next(n for n in (SELECTED, BASIN, EVERY) if n in sets)
    titles = {BASIN: "Main basin", SELECTED: "Selected", EVERY: "All"}
    labels = {name: f"{titles[name]} ({len(names)})" for name, names in sets.items()}
    labels[CUSTOM] = "By name"
    key = f"candidates-{chosen}"
    st.session_state["candidates-shown"] = chosen

    def choose() -> None:
        picked = st.session_state.get(key, chosen)
        if picked == chosen or st.session_state["candidates-shown"] != chosen:
            return  # sent by a control of an earlier run
        if picked == CUSTOM:
            st.session_state["candidate"] = list(sets.get(chosen, []))
        st.session_state["candidates"] = picked

    st.segmented_control(
        "Candidates",
        list(labels),
        default=chosen,
        format_func=labels.__getitem__,
        required=True,
        key=key,
        on_change=choose,
        help="Selected: the ingredients that are selected on other pages. Main basin: the largest "
        "set of ingredients that are connected by evaluated lines without a barrier.",
    )
    names = sets.get(chosen, [])
    if chosen == CUSTOM:
        picked = st.session_state["candidate"]
        names = st.multiselect(
            "Ingredients",
            every,
            default=[name for name in picked if name in every],
            key=f"candidate-{view.folder}",
        )
        st.session_state["candidate"] = names
    names = view.sweep.names(names)
    _warn_of_outsiders(names, basin)
    return [*names, *soups]


def choose_soups(view: View) -> dict[str, StoredSoup]:
    """Let the user choose soups as additional candidates; return them by their names as such."""
    stored = {soup.soup.id: soup for soup in scores.soups(view)}
    if not stored:
        return {}
    names = scores.names_as_ingredients(view, stored.values())
    chosen = st.multiselect(
        "Include existing soups",
        list(reversed(stored)),
        default=[soup_id for soup_id in st.session_state["with"] if soup_id in stored],
        format_func=lambda soup_id: stored[soup_id].label,
        placeholder="None",
        help="Soups already built from this sweep. Each is treated as one more ingredient.",
        key=f"soups-as-ingredients-{view.folder}",
    )
    st.session_state["with"] = chosen
    return {names[soup_id]: soup for soup_id, soup in stored.items() if soup_id in chosen}


def choose_parameters(recipe: Recipe) -> dict[str, Any]:
    """Let the user set the parameters of a recipe; return them all.

    Rare parameters are folded away. Those without an effect are not shown, and have their default.
    """
    start = _from_session(recipe)
    chosen = recipe.check({})
    usual = [each for each in recipe.parameters if not each.is_rare]
    rare = [each for each in recipe.parameters if each.is_rare]
    _widgets(recipe, usual, start, chosen)
    if rare:
        changed = sum(start.get(each.name, each.default) != each.default for each in rare)
        label = "More parameters" + (f" ({changed} changed)" if changed else "")
        with st.expander(
            label, expanded=changed > 0, icon=":material/tune:", key=f"rare-{recipe.name}"
        ):
            _widgets(recipe, rare, start, chosen)
    _remember(recipe, chosen)
    return chosen


def choose_others(view: View, recipe: Recipe, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Let the user choose further recipes to build in the same job.

    Returns:
        Their parameters by name: those that the session holds, or the defaults.
    """
    offered = [
        name
        for name, other in RECIPES.items()
        if other is not recipe and why_not(view, other, len(names)) is None
    ]
    chosen = st.multiselect(
        "Also build",
        offered,
        default=[name for name in st.session_state["also"] if name in offered],
        format_func=lambda name: RECIPES[name].title,
        placeholder="No other recipe",
        help="From the same ingredients, one after the other in one job. Each has the parameters "
        "that you set last under its name, or the defaults.",
        key=f"also-{recipe.name}-{len(offered)}",
    )
    hidden = [name for name in st.session_state["also"] if name not in offered]
    st.session_state["also"] = [*hidden, *chosen]
    return {name: RECIPES[name].check({}) | _from_session(RECIPES[name]) for name in chosen}


def why_not(view: View, recipe: Recipe, count: int) -> str | None:
    """Return why a recipe cannot be used with so many ingredients, as Markdown; None if it can."""
    least, most = recipe.takes
    if recipe.chooses and not view.has_task:
        return f"{recipe.title} needs a task."
    if recipe.needs_base and view.sweep.base is None:
        return (
            f"{recipe.title} needs the base checkpoint (the shared initialisation). Add it to the "
            "sweep folder as `base.safetensors` and reload."
        )
    if count < least or (most is not None and count > most):
        number = f"exactly {least}" if least == most else f"at least {least}"
        return f"{recipe.title} needs {number} ingredients; {count} are selected."
    return None


def key_of(recipe: Recipe, parameter: Parameter) -> str:
    """Return the session's key of a parameter's widget."""
    return f"{recipe.name}-{parameter.name}"


def fill(
    recipe: str,
    parameters: Mapping[str, Any],
    names: Iterable[str],
    soups: Iterable[str],
    *,
    rule: TensorRule,
    coefficients: Mapping[str, Fraction],
) -> None:
    """Fill the form, before it is drawn next.

    Args:
        recipe: Name of the recipe.
        parameters: Its parameters. Those that are unknown in this version are left out.
        names: The candidates that are files.
        soups: Ids of the candidates that are soups.
        rule: Which tensors take part.
        coefficients: Those of a manual soup, by name.
    """
    session = st.session_state
    session.update({"recipe": recipe, "candidates": CUSTOM, "candidate": list(names)})
    session["with"] = list(soups)
    session["also"] = []
    session.update({"take": "" if rule.take == ALL else rule.take, "rest": list(rule.rest)})
    largest = max(map(abs, coefficients.values()), default=Fraction(1))
    shares = {name: float(c / largest) for name, c in coefficients.items()}
    session["share"] = [f"{name}={share:g}" for name, share in shares.items()]
    forms = (f"candidate-{session['sweep']}", f"soups-as-ingredients-{session['sweep']}")
    for key in [key for key in session if str(key) in forms or str(key).startswith(_FORM_KEYS)]:
        del session[key]
    if recipe in RECIPES:
        known = RECIPES[recipe]
        mine = {each.name for each in known.parameters}
        for parameter in known.parameters:
            session.pop(key_of(known, parameter), None)
        _remember(known, {n: value for n, value in parameters.items() if n in mine})


def choose_tensors(view: View, recipe: Recipe, names: Sequence[str]) -> View | None:
    """Let the user choose which tensors take part; return the view with that rule.

    Returns:
        None, with a message on the page, if the rule is invalid.
    """
    base = view.sweep.base
    models = [*names, *([base.name] if base is not None else [])]
    current = st.session_state["take"] or ALL
    kind = current if current in _TAKES else _PATTERN
    sources = [name for name in models if name in st.session_state["rest"]]
    is_changed = TensorRule(current, tuple(sources)) != TensorRule()
    label = "Tensors that take part" + (" (changed)" if is_changed else "")
    with st.expander(label, expanded=is_changed, icon=":material/layers:", key="tensors-of-recipe"):
        left, right = st.columns(2)
        with left:
            chosen = st.segmented_control(
                "Tensors",
                list(_TAKES),
                default=kind,
                format_func=_TAKES.__getitem__,
                required=True,
                help="The other tensors are the same in all ingredients while the recipe runs.",
                key="tensors-taken",
            )
            take = chosen
            if chosen == _PATTERN:
                take = _pattern(current if kind == _PATTERN else "!head.")
        with right:
            rest = st.multiselect(
                "The other tensors come from",
                models,
                default=sources,
                placeholder="Mean of the ingredients",
                help="One ingredient, or the mean of several.",
                key="tensors-rest",
            )
        rule = TensorRule(take, tuple(name for name in models if name in rest))
        st.session_state.update({"take": "" if take == ALL else take, "rest": list(rule.rest)})
        try:
            view = view.with_tensors(rule)
            fixed = view.sweep.for_recipe(names, uses_base=recipe.needs_base).fixed
        except SweepError as error:
            st.error(plain(str(error)), icon=":material/error:")
            return None
        for each in fixed:
            st.caption(f"Not merged: {plain(str(each))}.")
    if recipe.needs_base and view.sweep.new_tensors:
        count = len(view.sweep.new_tensors)
        source = ", ".join(map(plain, rule.rest)) or "the mean of the ingredients"
        st.caption(
            f"The base fits in part. {count} tensor{'s'[: count != 1]} that it lacks, or has in "
            f"other shapes, come from {source}. Choose another source under *Tensors that take "
            "part*."
        )
    return view


def _main_basin(view: View) -> list[str]:
    """Return the ingredients of the largest basin, as far as pairs are evaluated.

    Returns:
        The names; empty if no pair is evaluated, or no two ingredients are connected.
    """
    if not view.has_task:
        return []
    known = view.overview
    if not len(known.pairs):
        return []
    names = known.basins[0].names
    return list(names) if len(names) > 1 else []


def _warn_of_outsiders(names: Sequence[str], basin: Sequence[str]) -> None:
    """Warn of candidates outside the main basin, and offer to leave them out."""
    outside = [name for name in names if name not in basin]
    if not basin or not outside or len(outside) == len(names):
        return
    shown = listed(outside[:_NAMED])
    more = len(outside) - _NAMED
    are = "is" if len(outside) == 1 else "are"
    with st.container(horizontal=True, vertical_alignment="center", key="outsiders"):
        st.markdown(
            f":material/warning: {shown}{f' and {more} more' if more > 0 else ''} {are} outside "
            "the main basin, so averaging them can lower the score."
        )

        def leave_out() -> None:
            st.session_state["candidates"] = CUSTOM
            st.session_state["candidate"] = [name for name in names if name in basin]
            st.session_state.pop(f"candidate-{st.session_state['sweep']}", None)

        st.button(f"Leave out {len(outside)}", on_click=leave_out)


def _widgets(
    recipe: Recipe,
    parameters: Sequence[Parameter],
    start: Mapping[str, Any],
    chosen: dict[str, Any],
) -> None:
    """Show the widgets of parameters, with their values at first, and write these to `chosen`."""
    columns = st.columns(_COLUMNS) if parameters else []
    place = 0
    for parameter in parameters:
        if parameter.only_if is not None:
            name, needed = parameter.only_if
            if chosen[name] != needed:
                continue
        with columns[place % _COLUMNS]:
            value = start.get(parameter.name, parameter.default)
            chosen[parameter.name] = _widget(parameter, key_of(recipe, parameter), value)
        place += 1


def _widget(parameter: Parameter, key: str, value: Any) -> Any:
    if isinstance(parameter, Choice):
        return st.segmented_control(
            parameter.label,
            list(parameter.choices),
            default=value,
            format_func=lambda choice: _CHOICES.get(choice, choice),
            required=True,
            help=parameter.help,
            key=key,
        )
    if isinstance(parameter, Number):
        kind = int if parameter.is_whole else float
        # Not an argument: Streamlit warns of a default if a click on a curve has set the value.
        st.session_state.setdefault(key, kind(value))
        return st.number_input(
            parameter.label,
            kind(parameter.minimum),
            kind(parameter.maximum),
            step=kind(parameter.step),
            help=parameter.help,
            key=key,
        )
    if isinstance(parameter, Switch):
        return st.toggle(parameter.label, value, help=parameter.help, key=key)
    return st.text_input(parameter.label, value, help=parameter.help, key=key)


def _from_session(recipe: Recipe) -> dict[str, Any]:
    """Return the parameters of a recipe that the session holds; invalid ones are left out."""
    found = {}
    for text in st.session_state["parameter"]:
        name, _, value = text.partition("=")
        prefix, _, name = name.rpartition(".")
        known = {each.name: each for each in recipe.parameters}
        if prefix != recipe.name or name not in known:
            continue
        try:
            found[name] = _parsed(known[name], value)
            known[name].check(found[name])
        except (ValueError, RecipeError):
            found.pop(name, None)
    return found


def _parsed(parameter: Parameter, text: str) -> Any:
    if isinstance(parameter, Number):
        return int(text) if parameter.is_whole else float(text)
    return text == "true" if isinstance(parameter, Switch) else text


def _as_texts(recipe: Recipe, chosen: Mapping[str, Any]) -> list[str]:
    """Return the parameters that are not the default, as the session and the URL hold them."""
    defaults = recipe.check({})
    return [
        f"{recipe.name}.{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in chosen.items()
        if value != defaults[name]
    ]


def _remember(recipe: Recipe, chosen: Mapping[str, Any]) -> None:
    others = [t for t in st.session_state["parameter"] if not t.startswith(f"{recipe.name}.")]
    st.session_state["parameter"] = [*others, *_as_texts(recipe, chosen)]


def _pattern(current: str) -> str:
    return st.text_input(
        "Pattern",
        current,
        help="Prefixes or globs of tensor names, separated by commas. `!` excludes tensors: "
        "`backbone., !*.bias`.",
        key="tensors-pattern",
    )
