"""How a plan and what became of it are shown. Nothing in either is a secret: sources are shown as the file has them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Self, cast

import click
import grpc

from connectors_grpc.cli.errors import read
from connectors_grpc.cli.output import Output, clean
from connectors_grpc.configuration.applying import Applied, Outcome
from connectors_grpc.configuration.steps import Action, Plan, Step

SIGNS = {Action.CREATE: ("+", "green"), Action.CHANGE: ("~", "yellow"), Action.DELETE: ("-", "red")}
SHOWN = 100
"""Steps that are shown before they are done; all that delete are shown in any case."""


def reason(error: grpc.RpcError) -> str:
    """A failed call's reason."""
    return read(cast(grpc.Call, error)).reason


def explain(error: grpc.RpcError) -> str:
    """A failed call on one line."""
    refusal = read(cast(grpc.Call, error))
    fields = "".join(f" {name}: {text}." for name, text in refusal.fields)
    return f"{refusal.reason}: {refusal.message}{fields}" if refusal.reason else refusal.message


def show_plan(out: Output, plan: Plan, *, most: int | None = SHOWN) -> None:
    """What is to be done, in order."""
    if out.json:
        out.value(as_value(plan))
        return
    shown = plan.steps if most is None else plan.steps[:most]
    for step in shown:
        _show(out, step)
    for step in plan.steps[len(shown) :]:
        if step.action is Action.DELETE:
            _show(out, step)
    hidden = sum(step.action is not Action.DELETE for step in plan.steps[len(shown) :])
    if hidden:
        out.said(f"  and {hidden} more: `connectors config diff` shows all")
    for refusal in plan.refusals:
        out.said(f"! {refusal}")
    for note in plan.notes:
        out.said(f"* {note}")
    out.said(summary(plan))


def _show(out: Output, step: Step) -> None:
    sign, colour = SIGNS[step.action]
    line = clean(f"{sign} {step.thing}")
    click.echo(click.style(line, fg=colour) if out.colour else line)
    for text in step.what:
        out.said(f"    {text}")


def summary(plan: Plan) -> str:
    """A plan in one line."""
    counts = ", ".join(f"{plan.count(action)} to {action}" for action in Action)
    refused = f", {len(plan.refusals)} refused" if plan.refusals else ""
    return f"{counts}, {plan.unchanged} unchanged{refused}."


def as_value(plan: Plan, outcomes: Sequence[Outcome] = ()) -> dict[str, Any]:
    """A plan for --json; with outcomes, what became of each step."""
    became = {id(outcome.step): outcome for outcome in outcomes}
    return {
        "steps": [_step(step, became.get(id(step))) for step in plan.steps],
        "notes": list(plan.notes),
        "refusals": list(plan.refusals),
        **{str(action): plan.count(action) for action in Action},
        "unchanged": plan.unchanged,
    }


def _step(step: Step, outcome: Outcome | None) -> dict[str, Any]:
    said: dict[str, Any] = {
        "action": str(step.action),
        "thing": step.thing.rpartition(" ")[0],
        "tenant": step.tenant,
        "name": step.name,
        "what": list(step.what),
    }
    if outcome is not None:
        said |= {"done": not outcome.failed, "failed": outcome.failed}
    return said


class Progress:
    """Counts outcomes on stderr: on a terminal as they come; failures stay, wherever it is."""

    def __init__(self, out: Output, total: int) -> None:
        self._out = out
        self._total = total
        self._shown = sys.stderr.isatty() and not out.json
        self._done = 0

    def tell(self, outcome: Outcome) -> None:
        """One more."""
        self._done += 1
        if outcome.failed:
            self._clear()
            self._out.note(f"! {outcome.step.thing}: {outcome.failed}")
        if self._shown:
            click.echo(f"\r\x1b[K{self._done} of {self._total}", err=True, nl=False)

    def _clear(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._clear()


def show_outcomes(out: Output, plan: Plan, done: Applied) -> None:
    """What became of it."""
    if out.json:
        out.value(as_value(plan, done.outcomes))
    elif plan.steps:
        out.said(told(done))


def told(done: Applied) -> str:
    """What became of a plan, in one line."""
    counts = dict.fromkeys(Action, 0)
    unchanged = 0
    for outcome in done.outcomes:
        if outcome.unchanged:
            unchanged += 1
        elif not outcome.failed:
            counts[outcome.step.action] += 1
    said = ", ".join(f"{count} {action}d" for action, count in counts.items())
    more = f", {unchanged} were there already" if unchanged else ""
    return f"{said}{more}, {done.failed} failed."
