r"""Rules: every identity that a flow map obeys, as a residual to train by.

The map is :math:`X_{s,t}(x) = x + (t - s)\, u_{s,t}(x)`, so it is the identity at s = t, and its
velocity there is :math:`u_{t,t}`. Given that velocity, b, X is the flow map of b if and only if one
of the following holds, in which D is the derivative along :math:`(\dot s, \dot x) = (1, b_s(x))`:

.. math::
    \text{Lagrangian} \quad & \partial_t X_{s,t}(x) = b_t(X_{s,t}(x)) \\
    \text{Eulerian}   \quad & u_{s,t}(x) = b_s(x) + (t - s)\, D u_{s,t}(x) \\
    \text{semigroup}  \quad & X_{u,t}(X_{s,u}(x)) = X_{s,t}(x)

One file for each: `lagrangian`, `eulerian`, `semigroup`. `consistency` holds the rules of jumps to
the data alone, t = 1. `base` has what they share.
"""
