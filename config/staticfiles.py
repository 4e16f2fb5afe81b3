"""Static files with a hash in their name, so that browsers may keep them for ever."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class ConsoleStaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Tolerates what npm packages leave out: their source maps are named in comments but not always shipped."""

    manifest_strict = False
    patterns = ()
