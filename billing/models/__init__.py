"""Money: what an account has, what is held of it, every movement in double entry, and what was bought."""

from billing.models.auto_topups import AutoTopUp
from billing.models.balance_alerts import BalanceAlert
from billing.models.budgets import Budget
from billing.models.details import BillingDetails
from billing.models.disputes import Dispute
from billing.models.ledger import AuditedHead, ChainHead, LedgerAccount, LedgerTransaction, Posting
from billing.models.methods import SavedPaymentMethod
from billing.models.promotions import PromotionalCredit, WithheldCredit
from billing.models.receipts import Receipt, ReceiptNumbers
from billing.models.refunds import Refund
from billing.models.topups import TopUp
from billing.models.wallets import GatewayProcess, Hold, Wallet
from billing.models.webhooks import (
    PaymentClosing,
    PaymentReport,
    RefundReport,
    UnmatchedPayment,
    WebhookEvent,
)

__all__ = [
    "AuditedHead",
    "AutoTopUp",
    "BalanceAlert",
    "BillingDetails",
    "Budget",
    "ChainHead",
    "Dispute",
    "GatewayProcess",
    "Hold",
    "LedgerAccount",
    "LedgerTransaction",
    "PaymentClosing",
    "PaymentReport",
    "Posting",
    "PromotionalCredit",
    "Receipt",
    "ReceiptNumbers",
    "Refund",
    "RefundReport",
    "SavedPaymentMethod",
    "TopUp",
    "UnmatchedPayment",
    "Wallet",
    "WebhookEvent",
    "WithheldCredit",
]
