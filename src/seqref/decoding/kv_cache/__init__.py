r"""Keys and values of a transformer in memory that is there before, for decoding."""

from seqref.decoding.kv_cache._decoder import CachedDecoder
from seqref.decoding.kv_cache._tickets import CacheTicket

__all__ = ["CacheTicket", "CachedDecoder"]
