"""Making a key and changing it. What a key did is on `config.key_pages`, which may read usage."""

from collections.abc import Callable

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from accounts.acting import AccountRequest, acting_account_required
from keys import examples, issuing, one_time, policies, revoking, rotating
from keys.forms import CreateForm, PolicyForm, RotateForm
from keys.issuing import IssuedKey
from keys.locking import RevokedKeyError
from keys.models import ApiKey

_EXPIRED_FORM = "This page was open for too long, so nothing was done. Check it and send it again."


@never_cache  # Back must ask for a new form, and must not find the secret.
@acting_account_required
def create(request: AccountRequest) -> HttpResponse:
    """Make a key. The answer to the POST is the one page that ever shows its secret."""
    at = timezone.now()
    if request.method != "POST":
        form = CreateForm(account=request.account, at=at, initial={"owner": request.user.pk})
        return _create_page(request, form, token=one_time.offer(session=request.session))
    form = CreateForm(request.POST, account=request.account, at=at)
    token = request.POST.get("token", "")
    if form.is_valid():

        def issue() -> IssuedKey:
            environment = form.cleaned_data["environment"]
            return issuing.issue(
                account=request.account, actor=request.user, at=at, environment=environment, **form.policy()
            )

        try:
            return _show_once(request, token=token, act=issue, heading="Your new key")
        except one_time.UnknownTokenError:
            form.add_error(None, _EXPIRED_FORM)
            token = one_time.offer(session=request.session)
        except ValidationError as error:
            form.add_error(None, error)
    return _create_page(request, form, token=token)


@never_cache
@acting_account_required
def rotate(request: AccountRequest, key_id: int) -> HttpResponse:
    """Give a key a new secret, which the answer to the POST shows once."""
    key = _key_or_404(request, key_id)
    if key.status == ApiKey.Status.REVOKED:
        return _refuse_revoked(request, key)
    form = RotateForm(request.POST or None)
    token = request.POST.get("token", "")
    if request.method == "POST" and form.is_valid():

        def act() -> IssuedKey:
            overlap = form.overlap_chosen()
            return rotating.rotate(key=key, actor=request.user, at=timezone.now(), overlap=overlap)

        try:
            return _show_once(request, token=token, act=act, heading="The new secret")
        except RevokedKeyError:
            return _refuse_revoked(request, key)
        except one_time.UnknownTokenError:
            form.add_error(None, _EXPIRED_FORM)
            token = ""
    token = token or one_time.offer(session=request.session)
    return render(request, "keys/rotate.html", {"key": key, "form": form, "token": token})


@acting_account_required
def policy(request: AccountRequest, key_id: int) -> HttpResponse:
    """Edit what a key is called and what it may do."""
    key = _key_or_404(request, key_id)
    if key.status == ApiKey.Status.REVOKED:
        return _refuse_revoked(request, key)
    form = PolicyForm(request.POST or None, account=request.account, at=timezone.now(), key=key)
    if request.method == "POST" and form.is_valid():
        try:
            policies.change_policy(key=key, actor=request.user, **form.changes())
        except RevokedKeyError:
            return _refuse_revoked(request, key)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(
                request, f"“{key.name}” is saved. Its next request is judged by what it says now."
            )
            return redirect("key_detail", key.pk)
    return render(request, "keys/policy.html", {"key": key, "form": form})


@acting_account_required
def revoke(request: AccountRequest, key_id: int) -> HttpResponse:
    """Ask once, then end the key for good."""
    key = _key_or_404(request, key_id)
    if key.status == ApiKey.Status.REVOKED:
        return _refuse_revoked(request, key)
    if request.method == "POST":
        revoking.revoke(key=key, actor=request.user, at=timezone.now())
        messages.success(request, f"“{key.name}” is revoked. Every request with it is refused from now on.")
        return redirect("key_detail", key.pk)
    return render(request, "keys/revoke.html", {"key": key})


@acting_account_required
def disable(request: AccountRequest, key_id: int) -> HttpResponse:
    """Ask once, then refuse the key until it is enabled again."""
    key = _key_or_404(request, key_id)
    if key.status != ApiKey.Status.REVOKED and request.method != "POST":
        return render(request, "keys/disable.html", {"key": key})
    return _switch(
        request, key, revoking.disable, "is disabled. Its requests are refused until you enable it."
    )


@require_POST
@acting_account_required
def enable(request: AccountRequest, key_id: int) -> HttpResponse:
    """Serve a disabled key again."""
    key = _key_or_404(request, key_id)
    return _switch(request, key, revoking.enable, "is enabled. Its requests are served again.")


def _key_or_404(request: AccountRequest, key_id: int) -> ApiKey:
    return get_object_or_404(ApiKey, account=request.account, pk=key_id)


def _create_page(request: HttpRequest, form: CreateForm, *, token: str) -> HttpResponse:
    return render(request, "keys/create.html", {"form": form, "token": token})


def _refuse_revoked(request: HttpRequest, key: ApiKey) -> HttpResponse:
    messages.error(request, str(RevokedKeyError()))
    return redirect("key_detail", key.pk)


def _switch(request: AccountRequest, key: ApiKey, act: Callable[..., ApiKey], message: str) -> HttpResponse:
    try:
        act(key=key, actor=request.user, at=timezone.now())
    except RevokedKeyError:
        return _refuse_revoked(request, key)
    messages.success(request, f"“{key.name}” {message}")
    return redirect("key_detail", key.pk)


@sensitive_variables("issued")
def _show_once(
    request: AccountRequest, *, token: str, act: Callable[[], IssuedKey], heading: str
) -> HttpResponse:
    """Act and show the secret, in this answer only: a reload finds the token used."""
    try:
        issued = one_time.once(session=request.session, token=token, act=act)
    except one_time.AlreadyUsedError as used:
        messages.warning(
            request,
            "That was done already, and only once. The secret was shown in the first answer and is not kept: "
            "if you missed it, rotate the key to get a new one.",
        )
        return redirect("key_detail", used.key_id)
    context = {
        "heading": heading,
        "key": issued.key,
        "secret": issued.secret,
        "example_model": examples.example_model(key=issued.key),
    }
    return render(request, "keys/secret.html", context)
