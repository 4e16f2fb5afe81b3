"""Forms about people: signing up, and the account's name."""

from typing import TYPE_CHECKING, Any

from allauth.account.forms import LoginForm as AllauthLoginForm
from allauth.account.forms import ResetPasswordForm as AllauthResetPasswordForm
from allauth.account.forms import SignupForm as AllauthSignupForm
from django import forms
from django.contrib.auth.hashers import make_password
from django.core.validators import MaxLengthValidator
from django.db import IntegrityError, transaction

from accounts.models import Account

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from accounts.models import User

    _AccountForm = forms.ModelForm[Account]
else:
    _AccountForm = forms.ModelForm

_LONGEST_EMAIL = 254


class _OurWords:
    """Labels in the words of the other pages, no placeholder that repeats one, and no address too long to keep."""

    fields: dict[str, forms.Field]

    def speak_as_we_do(self) -> None:
        for name, field in self.fields.items():
            field.widget.attrs.pop("placeholder", None)
            if name in {"email", "login"}:
                field.label = "E-mail"
                # allauth would cut a longer one off, and so write to somebody else.
                field.validators.append(MaxLengthValidator(_LONGEST_EMAIL))


class LoginForm(_OurWords, AllauthLoginForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.speak_as_we_do()


class ResetPasswordForm(_OurWords, AllauthResetPasswordForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.speak_as_we_do()


class SignupForm(_OurWords, AllauthSignupForm):
    """A sign-up that takes as long, and looks the same, whether or not the e-mail already has a user."""

    account_already_exists: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.speak_as_we_do()
        self.fields["password1"].help_text = "At least 10 characters, and not a common one."

    def try_save(self, request: "HttpRequest") -> tuple["User | None", "HttpResponse | None"]:
        """Make the user, or, where there is one, only send the mail that says so.

        Two sign-ups with one e-mail at the same time: the second meets the unique index, and goes on as if it had
        come later.
        """
        if self.account_already_exists:
            # The hash is what takes time in a sign-up; without one here, the clock would tell.
            make_password(self.cleaned_data["password1"])
        else:
            try:
                # User, account, membership and address: all or none. Mail goes out after this.
                with transaction.atomic():
                    return super().try_save(request)  # type: ignore[no-any-return]
            except IntegrityError:
                self.account_already_exists = True
        return super().try_save(request)  # type: ignore[no-any-return]


class AccountNameForm(_AccountForm):
    class Meta:
        model = Account
        fields = ("name",)
        help_texts = {"name": "Shown on receipts and to the operator."}
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "organization"})}
