"""What the ingress needs of a graph. The graph itself lives in ``graphs/`` and is handed in."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

from deployments.types import (
    Alias,
    AnswerEvent,
    Basis,
    ClusterStatus,
    CollectionChanges,
    CollectionInfo,
    CollectionSettings,
    Document,
    DocumentInfo,
    EmbeddedText,
    Erasure,
    ErasureScope,
    Exported,
    GenerationRequest,
    Imported,
    IndexedDocument,
    IndexStats,
    LoadOrder,
    ModelKind,
    ModelState,
    Relevance,
    Retrieval,
    ScoredChunk,
    SearchRequest,
    StoredDocument,
    SwitchOrder,
    TuningOrder,
    TuningState,
    Vectors,
    VectorSpace,
)


class Graph(Protocol):
    """Every capability behind the HTTP surface. All calls share the request's deadline.

    Collections are addressed by their path. Routes do not see this but a `TenantGraph`, which takes
    names; so a method that comes here comes there, too.

    Each method raises a `RagError`; cancelling the caller's task cancels the work in the replicas.
    """

    @property
    def generation_models(self) -> Sequence[str]:
        """Return the ids of the loaded generation models, the default one first."""
        ...

    @property
    def embedding_models(self) -> Sequence[str]:
        """Return the ids of the loaded embedding models, the default one first."""
        ...

    @property
    def reranking_models(self) -> Sequence[str]:
        """Return the ids of what can rerank, the default first."""
        ...

    async def resolve(self, model: str, kind: ModelKind) -> str:
        """Return the id of the very model behind an id or alias; of several, the main one."""
        ...

    async def basis(
        self,
        request: GenerationRequest,
        retrieval: Retrieval | None,
        *,
        is_greedy_only: bool,
        timeout_s: float,
    ) -> Basis | None:
        """Return what the answer to a request depends on besides; raises as the answer would.

        With `is_greedy_only`, None where the answer is left to chance.
        """
        ...

    async def load_model(self, order: LoadOrder) -> ModelState:
        """Have a model loaded; what is loaded stays as it is."""
        ...

    async def reload_model(self, model: str) -> ModelState:
        """Have a version loaded again as it was before."""
        ...

    async def unload_model(self, model: str, *, force: bool) -> ModelState:
        """Have a model go once its requests have ended."""
        ...

    async def switch_model(self, order: SwitchOrder) -> Alias:
        """Point an alias at a ready model."""
        ...

    async def model_state(self, model: str) -> ModelState:
        """Return what the registry says of a version now; raises ModelNotFound."""
        ...

    async def model_status(self, *, timeout_s: float) -> ClusterStatus:
        """Return every model, replica and machine as it is now."""
        ...

    async def begin_tuning(self, order: TuningOrder) -> TuningState:
        """Check an order for a fine-tuning, and queue it."""
        ...

    async def tuning(self, tuning_id: str) -> TuningState:
        """Return how a fine-tuning is now; raises NotFound."""
        ...

    async def tunings(self, *, limit: int, after: str) -> list[TuningState]:
        """Return fine-tunings, the newest first; of those, the ones older than `after`."""
        ...

    async def cancel_tuning(self, tuning_id: str) -> TuningState:
        """Have a fine-tuning end; raises NotFound."""
        ...

    async def delete_tuning(self, tuning_id: str) -> None:
        """Remove a fine-tuning that has ended, and what it made; raises NotFound, Conflict."""
        ...

    def generate(
        self, request: GenerationRequest, *, timeout_s: float
    ) -> AsyncIterator[AnswerEvent]:
        """Yield `PromptAccepted`, then each choice's deltas and `Finished`, interleaved."""
        ...

    def answer(
        self, request: GenerationRequest, retrieval: Retrieval, *, timeout_s: float
    ) -> AsyncIterator[AnswerEvent]:
        """Answer from a collection: as `generate`, with one `Sources` after `PromptAccepted`."""
        ...

    async def embed(
        self, texts: Sequence[str], *, model: str, timeout_s: float
    ) -> tuple[Vectors, list[int]]:
        """Return one vector and the number of tokens per text."""
        ...

    async def dim(self, model: str, *, timeout_s: float) -> int:
        """Return the length of an embedding model's vectors."""
        ...

    async def space(self, collection: str, *, timeout_s: float) -> VectorSpace:
        """Return what a collection's vectors are now, or will be if indexing creates it."""
        ...

    async def vectorize(
        self, texts: Sequence[str], *, model: str, overlap_tokens: int | None, timeout_s: float
    ) -> list[EmbeddedText]:
        """Return each text's segments and their vectors; None: they overlap as configured."""
        ...

    async def index(
        self, collection: str, documents: Sequence[Document], *, timeout_s: float
    ) -> list[IndexedDocument]:
        """Segment, embed and store documents; the next search of any replica sees them."""
        ...

    async def search(
        self, request: SearchRequest, *, timeout_s: float, is_reranked: bool = False
    ) -> list[ScoredChunk]:
        """Return matching chunks, best first; reranked, their `score` is the `rerank_score`."""
        ...

    async def rerank(
        self, query: str, texts: Sequence[str], *, model: str | None = None, timeout_s: float
    ) -> Relevance:
        """Return one score in [0, 1] per text, in order; None is the default model."""
        ...

    async def collections(self, tenant: str, *, timeout_s: float) -> list[CollectionInfo]:
        """Return every collection of a tenant, by name."""
        ...

    async def create_collection(
        self, name: str, settings: CollectionSettings, *, timeout_s: float
    ) -> CollectionInfo:
        """Create a collection; raises Conflict when the name is taken."""
        ...

    async def index_stats(self, name: str, *, timeout_s: float) -> list[IndexStats]:
        """Return what each replica that has the collection in memory holds of its vectors."""
        ...

    async def update_collection(
        self, name: str, changes: CollectionChanges, *, timeout_s: float
    ) -> CollectionInfo:
        """Change a collection's settings, and return it."""
        ...

    async def collection(self, name: str, *, timeout_s: float) -> CollectionInfo:
        """Return one collection."""
        ...

    async def delete_collection(self, name: str, *, timeout_s: float) -> None:
        """Delete a collection with all its documents."""
        ...

    async def documents(
        self, collection: str, *, limit: int, after: str, timeout_s: float
    ) -> list[DocumentInfo]:
        """Return up to `limit` documents by id, those with an id greater than `after`."""
        ...

    async def document(
        self, collection: str, document_id: str, *, timeout_s: float
    ) -> StoredDocument:
        """Return a stored document with its text."""
        ...

    async def delete_document(self, collection: str, document_id: str, *, timeout_s: float) -> None:
        """Delete a document; the next search of any replica no longer finds it."""
        ...

    def export_collection(self, collection: str, *, timeout_s: float) -> AsyncGenerator[bytes]:
        """Yield a Parquet file with one state of a collection, in pieces of a few MiB."""
        ...

    async def export_to(self, collection: str, uri: str, *, timeout_s: float) -> Exported:
        """Write a collection to a new Parquet file below a root of the server's."""
        ...

    async def import_collection(
        self, collection: str, source: bytes | str, *, max_document_bytes: int, timeout_s: float
    ) -> Imported:
        """Store the rows of a Parquet file, or of that at a URI; refused rows are reported."""
        ...

    async def erase(self, scope: ErasureScope, *, wait_s: float, timeout_s: float) -> Erasure:
        """Erase documents; return the receipt when all is clean, or after `wait_s`."""
        ...

    async def erasure(self, tenant: str, erasure_id: str, *, timeout_s: float) -> Erasure:
        """Return a receipt as it is now."""
        ...

    async def maintain(self) -> None:
        """Finish, until cancelled, what others began and could not finish."""
        ...

    async def health(self, *, timeout_s: float) -> dict[str, bool]:
        """Return, for each part the graph needs, whether it answers."""
        ...
