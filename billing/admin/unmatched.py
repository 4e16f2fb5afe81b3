"""Payments that fit no top-up, and what becomes of them."""

from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from accounts.models import User
from billing import topping_up, unmatched
from billing.admin.read_only import ReadOnly, usd
from billing.forms import ResolveForm
from billing.models import TopUp, UnmatchedPayment

if TYPE_CHECKING:
    UnmatchedPaymentModelAdmin = admin.ModelAdmin[UnmatchedPayment]
else:  # Django's classes take no type arguments at run time.
    UnmatchedPaymentModelAdmin = admin.ModelAdmin


@admin.register(UnmatchedPayment)
class UnmatchedPaymentAdmin(ReadOnly, UnmatchedPaymentModelAdmin):
    list_display = ("payment", "provider", "amount", "why", "seen_at", "resolved_at", "resolve_link")
    fields = (
        "provider",
        "payment",
        "amount",
        "reference",
        "why",
        "event",
        "seen_at",
        "mailed_at",
        "resolved_at",
        "resolved_by",
        "note",
        "topup",
        "resolve_link",
    )
    list_filter = (("resolved_at", admin.EmptyFieldListFilter), "provider")
    search_fields = ("payment", "reference", "note")

    @admin.display(description="Resolve")
    def resolve_link(self, payment: UnmatchedPayment) -> SafeString | str:
        if payment.resolved_at is not None:
            return "Resolved"
        address = reverse("admin:billing_unmatchedpayment_resolve", args=[payment.pk])
        return format_html('<a href="{}">Credit or close it</a>', address)

    def get_urls(self) -> list[URLPattern]:
        resolve = self.admin_site.admin_view(self.resolve)
        return [
            path("<int:payment_id>/resolve/", resolve, name="billing_unmatchedpayment_resolve"),
            *super().get_urls(),
        ]

    def resolve(self, request: HttpRequest, payment_id: int) -> HttpResponse:
        """Credit the payment to an account, or close it with a note."""
        if not isinstance(request.user, User) or not request.user.has_perm("billing.change_unmatchedpayment"):
            raise PermissionDenied
        payment = get_object_or_404(UnmatchedPayment, pk=payment_id)
        named = TopUp.objects.select_related("account").filter(
            provider=payment.provider, provider_reference=payment.reference
        )
        form = ResolveForm(request.POST or None)
        if form.is_valid() and self._resolve(request, request.user, form, payment):
            return redirect("admin:billing_unmatchedpayment_change", payment.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": "Credit or close a payment",
            "payment": payment,
            "named": named.first() if payment.reference else None,
            "form": form,
            "opts": self.opts,
        }
        return render(request, "admin/billing/unmatchedpayment/resolve.html", context)

    def _resolve(
        self, request: HttpRequest, actor: User, form: ResolveForm, payment: UnmatchedPayment
    ) -> bool:
        """Whether it is resolved now; else the form says what is in the way."""
        account, note = form.cleaned_data["account"], form.cleaned_data["note"]
        try:
            if account is None:
                unmatched.resolve(unmatched=payment, actor=actor, text=note, at=timezone.now())
                messages.success(request, "Closed. No money was moved here.")
            else:
                topup = unmatched.credit(
                    unmatched=payment, account=account, actor=actor, text=note, at=timezone.now()
                )
                messages.success(request, f"{usd(topup.credit_nanousd)} credited to {account}.")
        except unmatched.AlreadyResolved:
            messages.info(request, "Somebody has resolved this payment already.")
        except (unmatched.CannotBeCredited, topping_up.PaidOtherwise) as refused:
            form.add_error("account", str(refused))
            return False
        return True
