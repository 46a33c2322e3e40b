r"""The recurrences in plain PyTorch, with a backward pass derived by hand.

All that waits for no other step leaves the loop: the products with the inputs and the
factors of the derivatives are computed for all steps at once, and each weight's
gradient is one product at the end. What stays in the loop writes into memory that is
there.
"""

# Re-exported under their names; the op's public functions stand one level higher.
from seqref.ops.fused_recurrence.parallel.cho_gru import ChoGRUSaved as ChoGRUSaved
from seqref.ops.fused_recurrence.parallel.cho_gru import (
    cho_gru_backward as cho_gru_backward,
)
from seqref.ops.fused_recurrence.parallel.cho_gru import (
    cho_gru_forward as cho_gru_forward,
)
from seqref.ops.fused_recurrence.parallel.common import Gradients as Gradients
from seqref.ops.fused_recurrence.parallel.common import LSTMGradients as LSTMGradients
from seqref.ops.fused_recurrence.parallel.driver import run as run
from seqref.ops.fused_recurrence.parallel.forms import FORMS as FORMS
from seqref.ops.fused_recurrence.parallel.gru import GRUSaved as GRUSaved
from seqref.ops.fused_recurrence.parallel.gru import gru_backward as gru_backward
from seqref.ops.fused_recurrence.parallel.gru import gru_forward as gru_forward
from seqref.ops.fused_recurrence.parallel.lstm import LSTMSaved as LSTMSaved
from seqref.ops.fused_recurrence.parallel.lstm import lstm_backward as lstm_backward
from seqref.ops.fused_recurrence.parallel.lstm import lstm_forward as lstm_forward
from seqref.ops.fused_recurrence.parallel.rnn import RNNSaved as RNNSaved
from seqref.ops.fused_recurrence.parallel.rnn import rnn_backward as rnn_backward
from seqref.ops.fused_recurrence.parallel.rnn import rnn_forward as rnn_forward
