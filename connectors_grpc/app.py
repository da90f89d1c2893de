"""The composition root: the only module that names concrete classes. Read it to see how the server is put together."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from connectors_grpc import logs
from connectors_grpc.access import Access
from connectors_grpc.audit import LogAudit
from connectors_grpc.bootstrap import bootstrap_keys
from connectors_grpc.boundary import Boundary
from connectors_grpc.catalogue import catalogue
from connectors_grpc.certificates import read_certificates
from connectors_grpc.clock import SystemClock
from connectors_grpc.credentials.connecting import Connecting
from connectors_grpc.credentials.flows import Flows
from connectors_grpc.credentials.granting import Granting
from connectors_grpc.credentials.holding import Holding
from connectors_grpc.credentials.importing import Importing
from connectors_grpc.credentials.inflight import InFlight
from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.credentials.leasing import Leasing
from connectors_grpc.credentials.legacy_reads import LegacyRefreshing, Old, OldCredentials
from connectors_grpc.credentials.managing import Managing
from connectors_grpc.credentials.purging import Purging
from connectors_grpc.credentials.refresh_lease import RefreshLeases
from connectors_grpc.credentials.refreshing import Refreshing
from connectors_grpc.credentials.renewing import Renewing
from connectors_grpc.credentials.revoking import Revoking
from connectors_grpc.credentials.seeding import Seeding
from connectors_grpc.credentials.storing import Storing
from connectors_grpc.credentials.sweeping import Sweeping
from connectors_grpc.deleting import Deleting
from connectors_grpc.errors import ConnectorsError, VaultUnavailable
from connectors_grpc.fleet import Fleet
from connectors_grpc.http import metrics as measured
from connectors_grpc.http import reference
from connectors_grpc.http.app import Health, HttpFace
from connectors_grpc.http.listening import listening
from connectors_grpc.http.rest import Rest
from connectors_grpc.integrations import Integrations
from connectors_grpc.journals import JournaledChanges
from connectors_grpc.legacy_map import read_map
from connectors_grpc.metering import Metering
from connectors_grpc.metrics import CONTENT_TYPE, CountedAudit, Metrics, TimedOutbound
from connectors_grpc.operations import Operations
from connectors_grpc.outbound import HttpOutbound
from connectors_grpc.ports import Clock
from connectors_grpc.proxying import Proxying
from connectors_grpc.rotating import Rotating
from connectors_grpc.rpc.access_service import AccessServicer
from connectors_grpc.rpc.credential_service import CredentialServicer
from connectors_grpc.rpc.importing import Imports
from connectors_grpc.rpc.integration_service import IntegrationServicer
from connectors_grpc.rpc.proxy_service import ProxyServicer
from connectors_grpc.rpc.server import DESCRIPTORS, GrpcServer, Servicers
from connectors_grpc.rpc.tenant_service import TenantServicer
from connectors_grpc.schema import Guarded, SchemaNewer
from connectors_grpc.settings import ServerSettings
from connectors_grpc.spill import SpillDirectory
from connectors_grpc.streaming import Streaming
from connectors_grpc.tenants import Tenants
from connectors_grpc.upkeep import Chore, done_now_and_then
from connectors_grpc.vault import VaultCiphers, VaultClient, VaultDocuments, VaultSettings, connect
from connectors_grpc.vault.old_layout import OldVaultReader
from connectors_grpc.watching import Watching

GRACE = 10.0
SPARE = 3
"""A tenant has a quarter of the connections to providers at most: 25 at once are more refreshes than a server can do."""
log = logs.get("server")


@dataclass(frozen=True, slots=True)
class Platform:
    """Every use case, wired. Lives as long as the process."""

    access: Access
    servicers: Servicers
    connecting: Connecting
    revoking: Revoking
    records: Guarded
    chores: Sequence[Chore]


@asynccontextmanager
async def platform(
    settings: ServerSettings, vault: VaultClient, clock: Clock, metrics: Metrics
) -> AsyncIterator[Platform]:
    """The use cases over one Vault. Leaving waits for refreshes under way: what a provider answered is stored."""
    records, secrets = Guarded(VaultDocuments(vault, mount="connectors")), VaultDocuments(vault, mount="secret")
    with suppress(VaultUnavailable):  # then it is asked before the first call
        await records.check()
    audit, changes = CountedAudit(LogAudit(), metrics), JournaledChanges(records)
    platform_cipher, cipher = VaultCiphers(vault, mount="connectors-transit"), VaultCiphers(vault, mount="transit")
    # Calls of apps have connections of their own: however many are slow, tokens are refreshed.
    certificates = read_certificates((settings.client_certs or "").split())
    providers = HttpOutbound(ca_file=settings.outbound_ca_file, spare=SPARE)
    calling = HttpOutbound(ca_file=settings.outbound_ca_file, certificates=certificates)
    outbound = TimedOutbound(providers, metrics)

    access = Access(records, changes, audit, clock)
    tenants = Tenants(records, cipher, changes, audit, clock)
    integrations = Integrations(records, platform_cipher, catalogue(settings.catalogue_dir), changes, audit, clock)
    keeper = Keeper(secrets, cipher, clock)
    spill = SpillDirectory(settings.state_dir / "spill")
    leases = RefreshLeases(records, clock, spill.replica)
    calls = InFlight()
    holding = Holding(changes, calls)
    storing = Storing(keeper, tenants, integrations, spill, changes, audit, clock)
    renewing = Renewing(keeper, integrations, outbound, leases, storing, changes, audit, clock, holding)
    old = _old(settings, vault, integrations, clock)
    refreshing = (
        LegacyRefreshing(keeper, integrations, renewing, holding, clock, old)
        if old
        else Refreshing(keeper, integrations, renewing, holding, clock)
    )
    revoking = Revoking(records, tenants, integrations, keeper, outbound, clock)
    managing = Managing(tenants, integrations, keeper, revoking, leases, changes, audit, clock, old)
    leasing = Leasing(tenants, integrations, refreshing, holding, access, audit, clock)
    metering = Metering(tenants, clock)
    proxying = Proxying(leasing, metering, calling, calls, audit)
    streaming = Streaming(leasing, metering, calling, calls, audit)
    flows = Flows(records, clock)
    granting = Granting(managing, keeper, storing, outbound, audit, clock)
    connecting = Connecting(
        flows, tenants, integrations, managing, granting, platform_cipher, outbound, audit, clock, settings.base_url
    )
    operations = Operations(records, clock)
    deleting = Deleting(tenants, Purging(integrations, keeper, revoking), keeper, operations, audit)
    rotating = Rotating(tenants, secrets, records, cipher, platform_cipher, operations, audit, clock)
    sweeping = Sweeping(records, tenants, integrations, keeper, refreshing, clock, spill.replica)
    watching = Watching(changes, holding, access, tenants)
    servicers = Servicers(
        TenantServicer(tenants, deleting, rotating, operations, Fleet(tenants, keeper)),
        IntegrationServicer(integrations, tenants, rotating),
        CredentialServicer(
            tenants,
            integrations,
            connecting,
            managing,
            refreshing,
            leasing,
            proxying,
            Importing(managing, keeper, audit),
            Imports(access, audit),
            Seeding(secrets),
        ),
        ProxyServicer(proxying, streaming, leasing, watching),
        AccessServicer(access, tenants),
    )
    metrics.look_at(
        {
            "watches": ("Sidecars that are told of changes.", lambda: watching.open),
            "changes_heard": ("Whether the other replicas' changes reach this one.", changes.hears),
            "spilled_answers": ("Providers' answers that the Vault has not taken yet.", lambda: len(spill.names())),
            "vault_authenticated": (
                "Whether the Vault's token is good, as far as is known.",
                lambda: vault.authenticated,
            ),
        }
    )
    try:
        for cache in (access, tenants, integrations):
            changes.on_change(cache.forget)
        async with changes, holding, refreshing.flights, connecting.flights, operations:
            chores = (records.check, storing.recover, flows.sweep, operations.sweep, revoking.retry, sweeping.round)
            yield Platform(access, servicers, connecting, revoking, records, chores)
    finally:
        spill.close()
        await calling.aclose()
        await providers.aclose()


@asynccontextmanager
async def running(settings: ServerSettings, *, clock: Clock | None = None) -> AsyncIterator[GrpcServer]:
    """The whole server, up: both ports answer and the first keys are there. Leaving stops it in order.

    `clock` is the system's unless a test gives its own.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        vault = await stack.enter_async_context(connect(vault_settings(settings), metrics.vault))
        built = await stack.enter_async_context(platform(settings, vault, clock or SystemClock(), metrics))
        if settings.bootstrap_keys is not None:
            await bootstrap_keys(built.access, settings.bootstrap_keys)
        boundary = Boundary(built.access, metrics.rpc)
        server = GrpcServer(built.servicers, boundary, settings)
        await server.start()
        stack.push_async_callback(server.stop, GRACE)
        rest = Rest(boundary, DESCRIPTORS, built.servicers.handlers())
        face = HttpFace(
            built.connecting,
            _healthy(vault, built.records),
            base_url=settings.base_url,
            routes=[
                *rest.routes(),
                *reference.routes(boundary),
                *measured.routes(boundary, metrics.page, CONTENT_TYPE),
            ],
        )
        await stack.enter_async_context(listening(face.application(), settings))
        await stack.enter_async_context(done_now_and_then(built.chores))
        stack.push_async_callback(server.drain)
        yield server


async def serve(settings: ServerSettings, ready: Callable[[], None]) -> None:
    """Run until SIGTERM or SIGINT, then stop: NOT_SERVING first, no new calls, those under way, then cut."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings):
        log.info("serving", listen=str(settings.grpc_listen), address=settings.base_url)
        ready()
        await stop.wait()
        log.info("stopping")


def _old(
    settings: ServerSettings, vault: VaultClient, integrations: Integrations, clock: Clock
) -> OldCredentials | None:
    """The older layout, while a migration runs. Raises: MapUnusable."""
    if settings.legacy_reads is None:
        return None
    names = read_map(settings.legacy_map) if settings.legacy_map else {}
    log.warning("legacy_reads_on", path=settings.legacy_reads)
    old = Old(OldVaultReader(vault, settings.legacy_reads), settings.legacy_reads, names)
    return OldCredentials(integrations, clock, old)


def vault_settings(settings: ServerSettings) -> VaultSettings:
    """The server's settings as the adapter's: an address of its own, or the embedded OpenBao's socket."""
    return VaultSettings(
        address=settings.vault_addr or f"unix://{settings.state_dir / 'vault' / 'bao.sock'}",
        role_id=settings.vault_role_id or "",
        secret_id_file=settings.vault_secret_id_file
        or (None if settings.vault_token_file else settings.state_dir / "vault" / "approle.json"),
        token_file=settings.vault_token_file,
        ca_file=settings.vault_ca_file,
        namespace=settings.vault_namespace or "",
    )


def _healthy(vault: VaultClient, records: Guarded) -> Health:
    async def healthy() -> bool:
        try:
            health = await vault.health()
            if not records.understood:
                await records.check()
        except SchemaNewer:
            return False
        except ConnectorsError:
            return False
        return health.initialized and not health.sealed

    return healthy
