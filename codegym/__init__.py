"""Codegym: reinforcement learning of code with execution feedback. Everything that a plugin may import is here."""

from codegym.cluster import ServerProgram
from codegym.errors import BackendError, CodegymError, ConfigError, Interrupted, MissingDependency, PluginError
from codegym.hookspecs import hookimpl
from codegym.jsonl import read_lines
from codegym.roles import Backend, Dataset, Exploit, Grade, Guard, Policy, Reward, TrainingJob
from codegym.server import PrivateServer
from codegym.types import (
    NOT_RUN,
    Cell,
    Database,
    Entity,
    Example,
    Execution,
    Finding,
    Message,
    Rollout,
    Row,
    Target,
)
from codegym.worker import Killed, Worker

__all__ = [
    "NOT_RUN",
    "Backend",
    "BackendError",
    "Cell",
    "CodegymError",
    "ConfigError",
    "Database",
    "Dataset",
    "Entity",
    "Example",
    "Execution",
    "Exploit",
    "Finding",
    "Grade",
    "Guard",
    "Interrupted",
    "Killed",
    "Message",
    "MissingDependency",
    "PluginError",
    "Policy",
    "PrivateServer",
    "Reward",
    "Rollout",
    "Row",
    "ServerProgram",
    "Target",
    "TrainingJob",
    "Worker",
    "hookimpl",
    "read_lines",
]
__version__ = "0.1.0"
