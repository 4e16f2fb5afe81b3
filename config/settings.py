"""Every setting of Tollgate, read from the environment. `docs/settings.md` explains each variable.

`./tollgate up` without DATABASE_URL runs in embedded mode: it makes its own secrets, keeps them under
TOLLGATE_HOME, and passes them here. Anywhere else SECRET_KEY and KEY_PEPPERS must be given: there is no
default.
"""

import re
from pathlib import Path

import environ
from csp.constants import NONE, SELF

from catalog.money import decimal_or_nan

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

# --- Where and how it runs ---------------------------------------------------------------------------------

EMBEDDED = env.bool("TOLLGATE_EMBEDDED", default=False)
TOLLGATE_HOME = Path(env.str("TOLLGATE_HOME", default=str(BASE_DIR / "var"))).absolute()
# The address people use, without a trailing slash. Empty: taken from each request's Host header.
PUBLIC_URL = env.str("PUBLIC_URL", default="").rstrip("/")
# Where `./tollgate up` listens; it sets this itself. Mails link there where PUBLIC_URL does not say better.
TOLLGATE_URL = env.str("TOLLGATE_URL", default="").rstrip("/")
# Reverse proxies, whose X-Forwarded-For and X-Forwarded-Proto are believed. CIDR blocks.
TRUSTED_PROXIES = env.list("TRUSTED_PROXIES", default=[])

DEBUG = False
SECRET_KEY = env.str("SECRET_KEY")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_URL else []
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"

INSTALLED_APPS = [
    "config.apps.ConfigConfig",
    "accounts.apps.AccountsConfig",
    "catalog.apps.CatalogConfig",
    "keys.apps.KeysConfig",
    "billing.apps.BillingConfig",
    "usage.apps.UsageConfig",
    "gateway.apps.GatewayConfig",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "django_htmx",
    "csp",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.acting.ActingAccountMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "config.context.console",
            ],
            "builtins": ["config.templatetags.console"],
        },
    },
]

# --- PostgreSQL and Redis ----------------------------------------------------------------------------------

DATABASES = {"default": env.db("DATABASE_URL")}
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 2,
    # A network that swallows everything is noticed within about ten seconds, not after TCP's quarter of an hour.
    # (Sockets of this machine ignore it.)
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # A pool lets threads of the ASGI server share few connections. (django-environ cannot read a dict.)
    "pool": {"min_size": 0, "max_size": env.int("DATABASE_POOL_SIZE", default=8), "timeout": 2},
    **DATABASES["default"].get("OPTIONS", {}),
}
REDIS_URL = env.str("REDIS_URL")
# allauth's rate limits count in the cache. Sessions do not live there: Redis may be wiped at any moment.
_CACHE_OPTIONS = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
CACHES = {
    "default": {
        "BACKEND": "config.cache.SteadyCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "cache",
        "OPTIONS": _CACHE_OPTIONS,
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.db"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Celery ------------------------------------------------------------------------------------------------

# Of a socket, what redis-py calls `db` is a virtual host to Celery, and unknown it would be database 0.
CELERY_BROKER_URL = re.sub(
    r"([?&])db=", r"\1virtual_host=", REDIS_URL.replace("unix://", "redis+socket://", 1)
)
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

# --- People ------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = [env.str("PASSWORD_HASHER", default="django.contrib.auth.hashers.Argon2PasswordHasher")]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "overview"
ACCOUNT_ADAPTER = "accounts.signing_up.AccountAdapter"
ACCOUNT_FORMS = {
    "login": "accounts.forms.LoginForm",
    "reset_password": "accounts.forms.ResetPasswordForm",
    "signup": "accounts.forms.SignupForm",
}
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
# With a code by e-mail, a sign-up looks the same whether or not the address already has an account.
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
ACCOUNT_PASSWORD_RESET_BY_CODE_ENABLED = True
ACCOUNT_PASSWORD_RESET_BY_CODE_TIMEOUT = 15 * 60
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_LOGOUT_REDIRECT_URL = "home"
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
# A user has one address; another replaces it once it is confirmed, and the former one is told.
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Tollgate"

# --- Keys --------------------------------------------------------------------------------------------------

# "version:base64 of 32 bytes", comma-separated; the first signs new secrets, all of them verify.
KEY_PEPPERS = env.list("KEY_PEPPERS")

# --- Money -------------------------------------------------------------------------------------------------

# Payment providers offered, by slug. "sandbox" takes no real money: checks.py refuses it outside embedded
# mode unless SANDBOX_PAYMENTS_ALLOWED says that this is meant.
TOPUP_PROVIDERS = env.list("TOPUP_PROVIDERS", default=["sandbox"] if EMBEDDED else [])
SANDBOX_PAYMENTS_ALLOWED = env.bool("SANDBOX_PAYMENTS_ALLOWED", default=EMBEDDED)
TOPUP_MINIMUM_USD = decimal_or_nan(env.str("TOPUP_MINIMUM_USD", default="5"))
TOPUP_MAXIMUM_USD = decimal_or_nan(env.str("TOPUP_MAXIMUM_USD", default="10000"))
STRIPE_SECRET_KEY = env.str("STRIPE_SECRET_KEY", default="")
# Several during a rotation: what any of them has signed is believed.
STRIPE_WEBHOOK_SECRETS = env.list("STRIPE_WEBHOOK_SECRETS", default=[])
# Another address than Stripe's own, for a proxy or a test.
STRIPE_API_URL = env.str("STRIPE_API_URL", default="").rstrip("/")
# How long before promotional credit expires its account is told.
PROMOTION_NOTICE_DAYS = env.int("PROMOTION_NOTICE_DAYS", default=7)
# Who sells, as receipts say it. The lines of the address are separated by "|".
SELLER_NAME = env.str("SELLER_NAME", default="Tollgate")
SELLER_ADDRESS = env.str("SELLER_ADDRESS", default="")
SELLER_TAX_ID = env.str("SELLER_TAX_ID", default="")
# TTF files for letters that the receipts' own font lacks.
RECEIPT_FONTS = env.list("RECEIPT_FONTS", default=[])
# What of a refunded credit's fee goes back as well: 1 is all of its share, 0 nothing.
REFUND_FEE_SHARE = decimal_or_nan(env.str("REFUND_FEE_SHARE", default="1"))

# --- Gateway -----------------------------------------------------------------------------------------------

# With no provider key in the environment, every model is served by the sandbox upstream at this URL.
SANDBOX_UPSTREAM_URL = env.str("SANDBOX_UPSTREAM_URL", default="").rstrip("/")
GATEWAY_MAX_BODY_BYTES = env.int("GATEWAY_MAX_BODY_BYTES", default=4 * 1024 * 1024)
GATEWAY_CONNECT_TIMEOUT_S = env.float("GATEWAY_CONNECT_TIMEOUT_S", default=5.0)
GATEWAY_FIRST_BYTE_TIMEOUT_S = env.float("GATEWAY_FIRST_BYTE_TIMEOUT_S", default=60.0)
GATEWAY_IDLE_TIMEOUT_S = env.float("GATEWAY_IDLE_TIMEOUT_S", default=60.0)
GATEWAY_TOTAL_TIMEOUT_S = env.float("GATEWAY_TOTAL_TIMEOUT_S", default=900.0)
# Networks of the operator's own in which upstreams may be, over plain http too. Else: https to public addresses.
UPSTREAM_PRIVATE_NETWORKS = env.list("UPSTREAM_PRIVATE_NETWORKS", default=[])
# How soon a change of a model, a price or an upstream reaches the gateway.
GATEWAY_CATALOGUE_EVERY_S = env.float("GATEWAY_CATALOGUE_EVERY_S", default=2.0)

# --- Mail --------------------------------------------------------------------------------------------------

# Embedded mode keeps mail in an outbox that a page shows to loopback only; elsewhere it goes out by SMTP.
vars().update(_mail := env.email("EMAIL_URL", default="smtp://localhost:25"))
# Longest silence of the mail server, at each step; `?timeout=` of its address goes before the variable.
_wait = _mail.get("OPTIONS", {}).get("TIMEOUT", env.str("EMAIL_TIMEOUT_S", default="10"))
EMAIL_TIMEOUT = float(decimal_or_nan(str(_wait)))
MAIL_IS_KEPT = EMBEDDED and not env.str("EMAIL_URL", default="")
if MAIL_IS_KEPT:
    EMAIL_BACKEND = "config.outbox.OutboxBackend"
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="Tollgate <tollgate@localhost>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
OPERATOR_EMAILS = env.list("OPERATOR_EMAILS", default=[])

# --- Pages -------------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en"
USE_I18N = True
FORMAT_MODULE_PATH = ["config.formats"]
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATIC_ROOT = TOLLGATE_HOME / "static"
STATICFILES_DIRS = [
    BASE_DIR / "static",
    ("tabler", BASE_DIR / "node_modules" / "@tabler" / "core" / "dist"),
    ("chartjs", BASE_DIR / "node_modules" / "chart.js" / "dist"),
]
STATICFILES_FINDERS = [
    "config.staticfiles.ConsoleFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "config.staticfiles.ConsoleStaticFilesStorage"},
}
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# --- Security ----------------------------------------------------------------------------------------------

# Plain http is for a laptop. Anything that is not embedded is behind TLS.
HTTPS = env.bool("HTTPS", default=not EMBEDDED)
SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^health/"]
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    },
}

# --- Logs --------------------------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "gateway.naming.MaskedFormatter",
            "format": "{asctime} {levelname} {name}: {message}{request}",
            "style": "{",
        }
    },
    "filters": {"names_request": {"()": "gateway.naming.NamesRequest"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["names_request"]}
    },
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
    # Stripe's library logs what it sends and gets, which is about people.
    "loggers": {"stripe": {"level": "WARNING"}},
}
