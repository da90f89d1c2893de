"""A simulated provider: an OAuth 2.0 authorization server and a notes API, for demos and tests.

It is a simulator and says so on every page. It knows nothing of the platform's other modules.
"""

from connectors_grpc.simulator.app import create_app
from connectors_grpc.simulator.misbehaviour import Endpoint, Habit, Misbehaviour, Queued
from connectors_grpc.simulator.record import Record, SeenRequest, fingerprint
from connectors_grpc.simulator.server import serve
from connectors_grpc.simulator.settings import (
    Account,
    Client,
    RotatingAtOnce,
    RotatingWithGrace,
    Rotation,
    SimulatorSettings,
    Static,
    demo_client,
)
from connectors_grpc.simulator.simulator import Simulator
from connectors_grpc.simulator.state import StateFileInvalid

__all__ = [
    "Account",
    "Client",
    "Endpoint",
    "Habit",
    "Misbehaviour",
    "Queued",
    "Record",
    "RotatingAtOnce",
    "RotatingWithGrace",
    "Rotation",
    "SeenRequest",
    "Simulator",
    "SimulatorSettings",
    "StateFileInvalid",
    "Static",
    "create_app",
    "demo_client",
    "fingerprint",
    "serve",
]
