"""Static files with a hash in their name, so that browsers may keep them for ever."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from typing import Any

from django.contrib.staticfiles.finders import FileSystemFinder
from whitenoise.compress import Compressor
from whitenoise.storage import CompressedManifestStaticFilesStorage

# What pages load from npm packages. The rest of them (maps, modules, demo images) would only slow the start.
_SERVED = {
    "tabler": ("css/tabler.min.css", "js/tabler.min.js"),
    "chartjs": ("chart.umd.min.js", "chart.umd.js"),
}


class ConsoleFinder(FileSystemFinder):
    """Finds our own folder whole, and of the npm packages only the files that pages load."""

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, Any]]:
        for path, storage in super().list(ignore_patterns):
            served = _SERVED.get(getattr(storage, "prefix", None) or "")
            if served is None or any(fnmatch(path, pattern) for pattern in served):
                yield path, storage


class ConsoleStaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Rewrites nothing inside files: npm packages name source maps that they do not ship.

    Their `url()`s are data URLs, and the admin's own are served under their plain names too.
    """

    manifest_strict = False
    patterns = ()

    def stored_name(self, name: str) -> str:
        """The hashed name; the plain one before `collectstatic` has run, as in tests that read no static file."""
        hashed: str = self.hashed_files.get(self.hash_key(self.clean_name(name)), name)
        return hashed

    def create_compressor(self, **options: Any) -> Compressor:
        """Gzip alone: Brotli would take eight of the nine seconds that a first start then spends here."""
        return Compressor(use_brotli=False, **options)
