"""The fused loops of the Numba backend, as plain Python.

`numba_source` pastes a loop behind the printed formulas, which take the place of the functions declared at the head,
and lets Numba compile that text. The annotations name the types: Real is a number of the network's dtype, Reals an
array of them with one axis and no gaps.

Arrays of several axes come flat, with what is needed to find a row: `n` the units of a row, `batch` the rows of a
model, `..._stride` from one model's part to the next one's, 0 where all models share it. Rows are numbered through all
models. Sums run in an order that depends on the sizes of one model alone.
"""

from __future__ import annotations

from math import exp, inf, log, sqrt
from typing import Any

from gpumlp.backends.protocol import APART, CATEGORIES, COLUMN, COST, FIRST, FIRST_BAD, HITS, POSITION, STEP

Real = Any
Double = Any
Int = Any
Word = Any
Flag = Any
Reals = Any
Doubles = Any
Ints = Any
Words = Any
Flags = Any
Given = Any  # read only, of any dtype
Labels = Any  # read only

SUMMED = 64  # rows that are summed by themselves: blocked sums round less than running ones
AT_A_GLANCE = 64  # values of a row that are compared with the largest one before them at once
ROUNDS = 10


# ---------------------------------------------------------------- declared here, printed from the formulas


def real(x: Any) -> Any:
    """Return x as a number of the network's dtype."""
    return x


def double(x: Any) -> Any:
    """Return x as a number of 64 bits."""
    return x


def whole(x: Any) -> Any:
    """Return x as an integer of 64 bits."""
    return x


def word(x: Any) -> Any:
    """Return x as a word of 32 bits without a sign."""
    return x


def double_word(x: Any) -> Any:
    """Return x as a word of 64 bits without a sign."""
    return x


def activation_value(z: Real) -> Real:
    """f(z)."""
    raise NotImplementedError


def carry_back(d: Real, z: Real, a: Real) -> Real:
    """d f'(z)."""
    raise NotImplementedError


def carry_back_dropped(d: Real, z: Real, a: Real, mask: Real, grow: Real, keep: Real) -> Real:
    """d f'(z) under dropout."""
    raise NotImplementedError


def drop(a: Real, mask: Real, grow: Real) -> Real:
    """a mask / keep."""
    raise NotImplementedError


def scaled(z: Real, mean: Real, variance: Real, gamma: Real) -> Real:
    """gamma zhat."""
    raise NotImplementedError


def gamma_gradient(d: Real, z: Real, mean: Real, variance: Real) -> Real:
    """d zhat."""
    raise NotImplementedError


def delta_of_row(d: Real, z: Real, mean: Real, variance: Real, gamma: Real, mean_g: Real, mean_gz: Real) -> Real:
    """dC/dz of a layer that is normalised over the units of a row."""
    raise NotImplementedError


def delta_of_batch(
    d: Real, z: Real, mean: Real, variance: Real, gamma: Real, mean_d: Real, mean_dz: Real, weight: Real
) -> Real:
    """dC/dz of a layer that is normalised over the rows of a batch."""
    raise NotImplementedError


def follow(old: Real, new: Real) -> Real:
    """What a running statistic becomes."""
    raise NotImplementedError


def activate(z: Reals, a: Reals, b: Reals, sums: Reals) -> None:
    """Set z <- z + b and a = f(z) for some rows: `activate_units` or `activate_rows`."""
    raise NotImplementedError


def activate_by_unit(z: Reals, a: Reals, n_rows: Int, sums: Reals) -> None:
    """Set a = f(z) for some rows, those of each unit side by side: `activate_few_units` or `activate_few_rows`."""
    raise NotImplementedError


def cost_term(z: Real, a: Real, y: Real) -> Real:
    """What a unit adds to the cost."""
    raise NotImplementedError


def cost_outer(s: Real) -> Real:
    """The cost of an example from the sum of its terms."""
    raise NotImplementedError


def output_delta_value(z: Real, a: Real, y: Real, c: Real, weight: Real) -> Real:
    """row_weight dC/dz."""
    raise NotImplementedError


# ---------------------------------------------------------------- embeddings


def code_of(value: Real, categories: Int) -> Int:
    """Return the code of a category that a number is, -1 if it is none."""
    code = whole(value) if value >= 0 and value < categories else -1
    return code if real(code) == value else -1


def embed(
    units: Ints,
    n: Int,
    firsts: Ints,
    x: Reals,
    x_stride: Int,
    n_columns: Int,
    tables: Reals,
    tables_stride: Int,
    batch: Int,
    first: Int,
    last: Int,
    a: Reals,
) -> None:
    """a <- the rows of x, with a table's line in place of each code, for the rows from `first` on.

    units, firsts   of a Lookup; between two codes there are numbers, side by side
    """
    for row in range(first, last):
        m = row // batch
        at = m * x_stride + (row - m * batch) * n_columns
        values, read = x[at : at + n_columns], a[row * n : row * n + n]
        next_column = next_unit = 0
        for i in range(firsts.size):
            unit = firsts[i]
            column, n_units = units[COLUMN * n + unit], units[APART * n + unit]
            move(values[next_column:column], read[next_unit:unit])
            next_column, next_unit = column + 1, unit + n_units
            code, line = code_of(values[column], units[CATEGORIES * n + unit]), read[unit : unit + n_units]
            if code >= 0:
                begin = m * tables_stride + units[FIRST * n + unit] + code * n_units
                move(tables[begin : begin + n_units], line)
            else:
                clear(line)
        move(values[next_column:n_columns], read[next_unit:n])


def move(x: Reals, out: Reals) -> None:
    """out <- x."""
    for j in range(out.size):
        out[j] = x[j]


def clear(out: Reals) -> None:
    """out <- 0."""
    for j in range(out.size):
        out[j] = real(0)


def sum_by_code(
    units: Ints,
    n: Int,
    firsts: Ints,
    x: Reals,
    x_stride: Int,
    n_columns: Int,
    batch: Int,
    delta: Reals,
    n_deltas: Int,
    first: Int,
    last: Int,
    dtables: Reals,
    dtables_stride: Int,
) -> None:
    """dtables <- the sum of delta over the rows of each code, for some tables, numbered through all models.

    units, firsts   of a Lookup
    delta           (n_models, batch, n_deltas) of the units from firsts[0] on
    """
    for i in range(first, last):
        m = i // firsts.size
        unit = firsts[i - m * firsts.size]
        column, categories, n_units = units[COLUMN * n + unit], units[CATEGORIES * n + unit], units[APART * n + unit]
        begin = m * dtables_stride + units[FIRST * n + unit]
        sums = dtables[begin : begin + categories * n_units]
        clear(sums)
        for row in range(batch):
            code = code_of(x[m * x_stride + row * n_columns + column], categories)
            if code >= 0:
                at = (m * batch + row) * n_deltas + unit - firsts[0]
                line, deltas = sums[code * n_units : code * n_units + n_units], delta[at : at + n_units]
                for k in range(n_units):
                    line[k] += deltas[k]


# ---------------------------------------------------------------- a layer's way forward


# A row may be shorter than a vector: some rows are worked on as one, and biases and sums are those of so many rows.


def repeat(x: Reals, out: Reals) -> None:
    """out <- x, again and again."""
    for i in range(0, out.size, x.size):
        part = out[i : i + x.size]
        for j in range(x.size):
            part[j] = x[j]


def forward(
    b: Reals,
    b_stride: Int,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    biases: Reals,
    z: Reals,
    a: Reals,
) -> None:
    """z <- z + b, a <- f(z) for the rows from `first` on and the units from `begin` on.

    biases   room for those of as many rows as are worked on as one, of all units if these are several
    """
    at_once, row = biases.size // (end - begin), first
    while row < last:
        m = row // batch
        stop = min((m + 1) * batch, last)
        repeat(b[m * b_stride + begin : m * b_stride + end], biases)
        while row < stop:
            n_rows = min(at_once, stop - row)
            at, size = row * n + begin, n_rows * (end - begin)
            zs, values = z[at : at + size], a[at : at + size]
            for j in range(size):
                t = zs[j] + biases[j]
                zs[j] = t
                values[j] = activation_value(t)
            row += n_rows


def forward_in_place(
    b: Reals,
    b_stride: Int,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    biases: Reals,
    a: Reals,
) -> None:
    """As forward, a <- f(a + b), where z need not be kept."""
    at_once, row = biases.size // (end - begin), first
    while row < last:
        m = row // batch
        stop = min((m + 1) * batch, last)
        repeat(b[m * b_stride + begin : m * b_stride + end], biases)
        while row < stop:
            n_rows = min(at_once, stop - row)
            at, size = row * n + begin, n_rows * (end - begin)
            values = a[at : at + size]
            for j in range(size):
                values[j] = activation_value(values[j] + biases[j])
            row += n_rows


# ---------------------------------------------------------------- dropout


def drop_out(
    keys: Words,
    clock: Ints,
    stream: Int,
    threshold: Word,
    grow: Real,
    first_row: Int,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    words: Words,
    mask: Flags,
    a: Reals,
) -> None:
    """a <- a mask / keep, the mask being drawn row by row with the counters of randomness/streams.py.

    first_row   place of the first row in the batch of the step

    words   room for 4 words for each 4 units that the units touch
    """
    first_quad, n_quads = begin // 4, (end + 3) // 4 - begin // 4
    low, shift = double_word(0xFFFFFFFF), double_word(32)
    for row in range(first, last):
        m = row // batch
        for quad in range(n_quads):
            c0, c1 = double_word(first_quad + quad), double_word(first_row + row - m * batch)
            c2, c3 = double_word(clock[STEP]) & low, double_word(stream)
            k0, k1 = double_word(keys[2 * m]), double_word(keys[2 * m + 1])
            for _ in range(ROUNDS):
                p0, p1 = c0 * double_word(0xD2511F53), c2 * double_word(0xCD9E8D57)
                c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
                k0, k1 = (k0 + double_word(0x9E3779B9)) & low, (k1 + double_word(0xBB67AE85)) & low
            words[4 * quad], words[4 * quad + 1] = word(c0), word(c1)
            words[4 * quad + 2], words[4 * quad + 3] = word(c2), word(c3)
        drawn = words[begin - 4 * first_quad :]
        values, stays = a[row * n + begin : row * n + end], mask[row * n + begin : row * n + end]
        for j in range(end - begin):
            stays[j] = drawn[j] >= threshold
            values[j] = drop(values[j], real(stays[j]), grow)


# ---------------------------------------------------------------- a layer's way back


def hidden_delta(
    z: Reals,
    a: Reals,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    partial: Reals,
    delta: Reals,
    db: Reals,
    db_stride: Int,
) -> None:
    """delta <- delta f'(z) (BP2), db <- its sum over the batch (BP3), for the models from `first` on.

    partial   zeros, some numbers for each unit, over which rows are dealt out, and zeros again afterwards
    """
    n_units = end - begin
    n_sums = partial.size // n_units
    at_once = n_sums if n_units == n else 1
    for m in range(first, last):
        sums = db[m * db_stride + begin : m * db_stride + end]
        for row in range(0, batch, at_once):
            n_rows = min(at_once, batch - row)
            at, size, own = (m * batch + row) * n + begin, n_rows * n_units, row % n_sums * n_units
            zs, values, deltas = z[at : at + size], a[at : at + size], delta[at : at + size]
            of_rows = partial[own : own + size]
            for j in range(size):
                d = carry_back(deltas[j], zs[j], values[j])
                deltas[j] = d
                of_rows[j] += d
            if (row + n_rows) % SUMMED == 0 or row + n_rows == batch:
                add_up(sums, partial, row < SUMMED)


def hidden_delta_dropped(
    z: Reals,
    a: Reals,
    mask: Flags,
    grow: Real,
    keep: Real,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    partial: Reals,
    delta: Reals,
    db: Reals,
    db_stride: Int,
) -> None:
    """As hidden_delta, under dropout."""
    n_units = end - begin
    n_sums = partial.size // n_units
    at_once = n_sums if n_units == n else 1
    for m in range(first, last):
        sums = db[m * db_stride + begin : m * db_stride + end]
        for row in range(0, batch, at_once):
            n_rows = min(at_once, batch - row)
            at, size, own = (m * batch + row) * n + begin, n_rows * n_units, row % n_sums * n_units
            zs, values, deltas = z[at : at + size], a[at : at + size], delta[at : at + size]
            of_rows = partial[own : own + size]
            stays = mask[at : at + size]
            for j in range(size):
                d = carry_back_dropped(deltas[j], zs[j], values[j], real(stays[j]), grow, keep)
                deltas[j] = d
                of_rows[j] += d
            if (row + n_rows) % SUMMED == 0 or row + n_rows == batch:
                add_up(sums, partial, row < SUMMED)


def add_up(sums: Reals, partial: Reals, begins: Flag) -> None:
    """Add the sums of a block of rows to those of all rows, of which it may be the first.

    partial   one or more numbers for each unit
    """
    n = sums.size
    for at in range(0, partial.size, n):
        part = partial[at : at + n]
        for j in range(n):
            sums[j] = part[j] if begins and at == 0 else sums[j] + part[j]
            part[j] = real(0)


# ---------------------------------------------------------------- normalisation over the units of a row


def normalise_rows(
    b: Reals,
    b_stride: Int,
    gamma: Reals,
    gamma_stride: Int,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    z: Reals,
    mean: Reals,
    variance: Reals,
    u: Reals,
) -> None:
    """z <- z + b, u <- gamma zhat for the rows from `first` on; mean and variance of each."""
    for row in range(first, last):
        m = row // batch
        biases, gammas = b[m * b_stride : m * b_stride + n], gamma[m * gamma_stride : m * gamma_stride + n]
        zs, us = z[row * n : row * n + n], u[row * n : row * n + n]
        total = square = real(0)
        for j in range(n):
            zs[j] += biases[j]
            total += zs[j]
        middle = total / real(n)
        for j in range(n):
            away = zs[j] - middle
            square += away * away
        spread = square / real(n)
        mean[row], variance[row] = middle, spread
        for j in range(n):
            us[j] = scaled(zs[j], middle, spread, gammas[j])


def normalised_delta_of_rows(
    mean: Reals,
    variance: Reals,
    gamma: Reals,
    gamma_stride: Int,
    batch: Int,
    n: Int,
    rows_of_chunk: Int,
    first: Int,
    last: Int,
    z: Reals,
    delta: Reals,
    gammas_of_chunk: Reals,
    biases_of_chunk: Reals,
) -> None:
    """delta <- dC/dz for some chunks of rows, and the chunks' sums for dgamma and db, (n_models, n_chunks, n) each."""
    n_chunks = (batch + rows_of_chunk - 1) // rows_of_chunk
    for chunk in range(first, last):
        m = chunk // n_chunks
        begin = (chunk - m * n_chunks) * rows_of_chunk
        scales = gamma[m * gamma_stride : m * gamma_stride + n]
        of_gamma, of_bias = gammas_of_chunk[chunk * n : chunk * n + n], biases_of_chunk[chunk * n : chunk * n + n]
        for i in range(begin, begin + rows_of_chunk if begin + rows_of_chunk <= batch else batch):
            row = m * batch + i
            zs, deltas = z[row * n : row * n + n], delta[row * n : row * n + n]
            middle, spread = mean[row], variance[row]
            total_g = total_gz = real(0)
            for j in range(n):
                term = gamma_gradient(deltas[j], zs[j], middle, spread)
                of_gamma[j] = term if i == begin else of_gamma[j] + term
                total_g += scales[j] * deltas[j]
                total_gz += scales[j] * term
            mean_g, mean_gz = total_g / real(n), total_gz / real(n)
            for j in range(n):
                d = delta_of_row(deltas[j], zs[j], middle, spread, scales[j], mean_g, mean_gz)
                deltas[j] = d
                of_bias[j] = d if i == begin else of_bias[j] + d


def add_chunks(partials: Reals, n_chunks: Int, n: Int, first: Int, last: Int, out: Reals, out_stride: Int) -> None:
    """out <- the sum of the chunks of a model, for the models from `first` on."""
    for m in range(first, last):
        sums = out[m * out_stride : m * out_stride + n]
        for chunk in range(n_chunks):
            part = partials[(m * n_chunks + chunk) * n : (m * n_chunks + chunk) * n + n]
            for j in range(n):
                sums[j] = part[j] if chunk == 0 else sums[j] + part[j]


# ---------------------------------------------------------------- normalisation over the rows of a batch


def add_bias(
    b: Reals, b_stride: Int, batch: Int, n: Int, first: Int, last: Int, begin: Int, end: Int, z: Reals
) -> None:
    """z <- z + b for the rows from `first` on and the units from `begin` on."""
    for row in range(first, last):
        biases = b[row // batch * b_stride + begin : row // batch * b_stride + end]
        zs = z[row * n + begin : row * n + end]
        for j in range(end - begin):
            zs[j] += biases[j]


def rows_that_count(weight: Reals) -> Real:
    """Return how many rows weigh anything."""
    count = real(0)
    for row in range(weight.size):
        count += real(weight[row] > 0)
    return count


def measure_batch(
    weight: Reals,
    weight_stride: Int,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    z: Reals,
    partial: Reals,
    mean: Reals,
    variance: Reals,
    count: Reals,
) -> None:
    """Mean and variance of each unit over the rows that count, and their number, for the models from `first` on.

    partial   zeros, a number for each unit, and zeros again afterwards
    """
    for m in range(first, last):
        weights = weight[m * weight_stride : m * weight_stride + batch]
        means, variances = mean[m * n + begin : m * n + end], variance[m * n + begin : m * n + end]
        counting = rows_that_count(weights)
        rows = counting if counting > 0 else real(1)
        if begin == 0:
            count[m] = counting
        for row in range(batch):
            zs = z[(m * batch + row) * n + begin : (m * batch + row) * n + end]
            if weights[row] > 0:
                for j in range(end - begin):
                    partial[j] += zs[j]
            if row % SUMMED == SUMMED - 1 or row == batch - 1:
                add_up(means, partial, row < SUMMED)
        for j in range(end - begin):
            means[j] /= rows
        for row in range(batch):
            zs = z[(m * batch + row) * n + begin : (m * batch + row) * n + end]
            if weights[row] > 0:
                for j in range(end - begin):
                    partial[j] += (zs[j] - means[j]) * (zs[j] - means[j])
            if row % SUMMED == SUMMED - 1 or row == batch - 1:
                add_up(variances, partial, row < SUMMED)
        for j in range(end - begin):
            variances[j] = variances[j] / rows if counting > 0 else real(1)


def follow_batch(
    mean: Reals,
    variance: Reals,
    weight: Reals,
    weight_stride: Int,
    skip: Flags,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    running_mean: Reals,
    mean_stride: Int,
    running_variance: Reals,
    variance_stride: Int,
) -> None:
    """Let the running statistics of the models that are not skipped follow those of the batch."""
    for m in range(first, last):
        counting = rows_that_count(weight[m * weight_stride : m * weight_stride + batch])
        means, variances = mean[m * n + begin : m * n + end], variance[m * n + begin : m * n + end]
        old_means = running_mean[m * mean_stride + begin : m * mean_stride + end]
        old_variances = running_variance[m * variance_stride + begin : m * variance_stride + end]
        if not skip[m] and counting >= 1:
            for j in range(end - begin):
                old_means[j] = follow(old_means[j], means[j])
        if not skip[m] and counting >= 2:
            of_sample = counting / (counting - real(1))
            for j in range(end - begin):
                old_variances[j] = follow(old_variances[j], variances[j] * of_sample)


def normalise_units(
    mean: Reals,
    mean_stride: Int,
    variance: Reals,
    variance_stride: Int,
    gamma: Reals,
    gamma_stride: Int,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    z: Reals,
    u: Reals,
) -> None:
    """u <- gamma zhat for the rows from `first` on and the units from `begin` on."""
    for row in range(first, last):
        m = row // batch
        means = mean[m * mean_stride + begin : m * mean_stride + end]
        variances = variance[m * variance_stride + begin : m * variance_stride + end]
        gammas = gamma[m * gamma_stride + begin : m * gamma_stride + end]
        zs, us = z[row * n + begin : row * n + end], u[row * n + begin : row * n + end]
        for j in range(end - begin):
            us[j] = scaled(zs[j], means[j], variances[j], gammas[j])


def normalised_delta_of_batch(
    mean: Reals,
    variance: Reals,
    weight: Reals,
    weight_stride: Int,
    count: Reals,
    gamma: Reals,
    gamma_stride: Int,
    dbeta: Reals,
    dbeta_stride: Int,
    batch: Int,
    n: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    partial: Reals,
    z: Reals,
    delta: Reals,
    dgamma: Reals,
    dgamma_stride: Int,
    db: Reals,
    db_stride: Int,
) -> None:
    """delta <- dC/dz, dgamma <- the sum of d zhat, db <- 0, for the models from `first` on and the units from `begin`.

    partial   zeros, a number for each unit, and zeros again afterwards
    """
    for m in range(first, last):
        means, variances = mean[m * n + begin : m * n + end], variance[m * n + begin : m * n + end]
        scales = gamma[m * gamma_stride + begin : m * gamma_stride + end]
        of_beta = dbeta[m * dbeta_stride + begin : m * dbeta_stride + end]
        of_gamma = dgamma[m * dgamma_stride + begin : m * dgamma_stride + end]
        of_bias = db[m * db_stride + begin : m * db_stride + end]
        rows = count[m] if count[m] > 0 else real(1)
        for row in range(batch):
            at = (m * batch + row) * n
            zs, deltas = z[at + begin : at + end], delta[at + begin : at + end]
            for j in range(end - begin):
                partial[j] += gamma_gradient(deltas[j], zs[j], means[j], variances[j])
            if row % SUMMED == SUMMED - 1 or row == batch - 1:
                add_up(of_gamma, partial, row < SUMMED)
        for row in range(batch):
            at = (m * batch + row) * n
            zs, deltas = z[at + begin : at + end], delta[at + begin : at + end]
            share = weight[m * weight_stride + row]
            for j in range(end - begin):
                mean_d, mean_dz = of_beta[j] / rows, of_gamma[j] / rows
                deltas[j] = delta_of_batch(deltas[j], zs[j], means[j], variances[j], scales[j], mean_d, mean_dz, share)
        for j in range(end - begin):
            of_bias[j] = real(0)


# ---------------------------------------------------------------- the output layer


def activate_units(z: Reals, a: Reals, b: Reals, sums: Reals) -> None:
    """z <- z + b, a <- f(z), f being the same for each unit."""
    for first in range(0, z.size, b.size):
        row = z[first : first + b.size]
        for j in range(b.size):
            row[j] += b[j]
    for i in range(z.size):  # over all rows at once: a row may be shorter than a vector
        a[i] = activation_value(z[i])


def activate_rows(z: Reals, a: Reals, b: Reals, sums: Reals) -> None:
    """z <- z + b, a <- softmax(z), z <- log a; sums has room for a number a row."""
    n, n_rows = b.size, z.size // b.size
    for r in range(n_rows):
        row = z[r * n : r * n + n]
        for j in range(n):
            row[j] += b[j]
        largest = largest_of(row, a[r * n : r * n + n])
        for j in range(n):
            row[j] -= largest
    for i in range(z.size):
        a[i] = exp(z[i])
    for r in range(n_rows):
        values = a[r * n : r * n + n]
        total = real(0)
        for j in range(n):
            total += values[j]
        for j in range(n):
            values[j] /= total
        sums[r] = total
    for r in range(n_rows):
        sums[r] = log(sums[r])
    for r in range(n_rows):
        row = z[r * n : r * n + n]
        for j in range(n):
            row[j] -= sums[r]


def largest_of(row: Reals, room: Reals) -> Real:
    """Return the largest value of a row, any of them if some are NaN; room for as many is overwritten."""
    most = room[: min(row.size, AT_A_GLANCE)]  # place k: the largest of the values k, k + 64, k + 128 and so on
    for j in range(most.size):
        most[j] = row[j]
    for begin in range(AT_A_GLANCE, row.size, AT_A_GLANCE):
        part = row[begin : min(begin + AT_A_GLANCE, row.size)]
        for j in range(part.size):
            most[j] = part[j] if part[j] > most[j] else most[j]
    largest = most[0]
    for j in range(1, most.size):
        largest = most[j] if most[j] > largest else largest
    return largest


def output_layer(
    b: Reals,
    b_stride: Int,
    y: Reals,
    y_stride: Int,
    weight: Reals,
    weight_stride: Int,
    batch: Int,
    n: Int,
    rows_of_chunk: Int,
    backward: Flag,
    counts: Flag,
    first: Int,
    last: Int,
    terms: Reals,
    sums: Reals,
    z: Reals,
    a: Reals,
    costs: Doubles,
    hits: Doubles,
    partials: Reals,
    delta: Reals,
) -> None:
    """z <- z + b, a <- f(z), each example's cost; delta <- row_weight dC/dz (BP1). For some chunks of rows.

    terms      room for the values of a chunk; sums for a number a row
    costs      (n_models, n_chunks), overwritten: the weighted cost of each chunk
    hits       (n_models, n_chunks), overwritten if they are counted: the weight of the rows whose largest output is
               that of the right class
    partials   (n_models, n_chunks, n), overwritten: sums of delta
    """
    n_chunks = (batch + rows_of_chunk - 1) // rows_of_chunk
    for chunk in range(first, last):
        m = chunk // n_chunks
        row = (chunk - m * n_chunks) * rows_of_chunk
        n_rows = rows_of_chunk if row + rows_of_chunk <= batch else batch - row
        at, size = (m * batch + row) * n, n_rows * n
        zs, values = z[at : at + size], a[at : at + size]
        targets = y[m * y_stride + row * n : m * y_stride + row * n + size]
        weights = weight[m * weight_stride + row : m * weight_stride + row + n_rows]
        activate(zs, values, b[m * b_stride : m * b_stride + n], sums)
        for i in range(size):
            terms[i] = cost_term(zs[i], values[i], targets[i])
        cost = 0.0
        for r in range(n_rows):
            total = 0.0
            for i in range(r * n, r * n + n):
                total += terms[i]
            c = cost_outer(real(total))
            sums[r] = c
            cost += double(c) * double(weights[r])
        costs[chunk] = cost
        if counts:
            hits[chunk] = weight_of_hits(values, targets, weights, n)
        if backward:
            deltas, part = delta[at : at + size], partials[chunk * n : chunk * n + n]
            for r in range(n_rows):
                for j in range(n):
                    i = r * n + j
                    d = output_delta_value(zs[i], values[i], targets[i], sums[r], weights[r])
                    deltas[i] = d
                    part[j] = d if r == 0 else part[j] + d


def largest_place(row: Reals) -> Any:
    """Return the place of the largest value: the first of equals, and NaN above all, as NumPy's argmax.

    Whether some values are larger is told of many at once, and seldom so: only then are they looked at one by one.
    """
    place = 0
    for begin in range(0, row.size, AT_A_GLANCE):
        part, largest, larger = row[begin : min(begin + AT_A_GLANCE, row.size)], row[place], 0
        for j in range(part.size):
            larger += 0 if part[j] <= largest else 1
        if larger > 0:
            for j in range(part.size):
                if row[place] != row[place]:
                    return place
                if not part[j] <= row[place]:
                    place = begin + j
    return place


def weight_of_hits(a: Reals, y: Reals, weight: Reals, n: Int) -> Double:
    """Return the weight of the rows whose outputs name the class that their targets name."""
    total = 0.0
    for row in range(weight.size):
        at = row * n
        if largest_place(a[at : at + n]) == largest_place(y[at : at + n]):
            total += double(weight[row])
    return total


# where units are few a row is shorter than a vector: there each unit of all rows of a chunk lies side by side


def by_unit(x: Reals, n: Int, out: Reals) -> None:
    """out <- x with the rows of each unit side by side."""
    n_rows = x.size // n
    for j in range(n):
        of_unit = out[j * n_rows : j * n_rows + n_rows]
        for r in range(n_rows):
            of_unit[r] = x[r * n + j]


def sum_of(x: Any) -> Any:
    """Return the sum, added up in an order that depends on the size alone."""
    total = x[0]
    for i in range(1, x.size):
        total += x[i]
    return total


def activate_few_units(z: Reals, a: Reals, n_rows: Int, sums: Reals) -> None:
    """a <- f(z), f being the same for each unit."""
    for i in range(z.size):
        a[i] = activation_value(z[i])


def activate_few_rows(z: Reals, a: Reals, n_rows: Int, sums: Reals) -> None:
    """a <- softmax(z), z <- log a; sums has room for a number a row."""
    n = z.size // n_rows
    for r in range(n_rows):
        sums[r] = z[r]
    for j in range(1, n):
        of_unit = z[j * n_rows : j * n_rows + n_rows]
        for r in range(n_rows):
            sums[r] = of_unit[r] if of_unit[r] > sums[r] else sums[r]
    for j in range(n):
        of_unit = z[j * n_rows : j * n_rows + n_rows]
        for r in range(n_rows):
            of_unit[r] -= sums[r]
    for i in range(z.size):
        a[i] = exp(z[i])
    for r in range(n_rows):
        sums[r] = a[r]
    for j in range(1, n):
        of_unit = a[j * n_rows : j * n_rows + n_rows]
        for r in range(n_rows):
            sums[r] += of_unit[r]
    for j in range(n):
        of_unit = a[j * n_rows : j * n_rows + n_rows]
        for r in range(n_rows):
            of_unit[r] /= sums[r]
    for r in range(n_rows):
        sums[r] = log(sums[r])
    for j in range(n):
        of_unit = z[j * n_rows : j * n_rows + n_rows]
        for r in range(n_rows):
            of_unit[r] -= sums[r]


def largest_places(values: Reals, n_rows: Int, most: Reals, places: Reals) -> None:
    """places <- `largest_place` of each row; `most` has room for a number a row."""
    for r in range(n_rows):
        most[r], places[r] = values[r], real(0)
    for j in range(1, values.size // n_rows):
        of_unit = values[j * n_rows : j * n_rows + n_rows]
        for r in range(n_rows):
            larger = not of_unit[r] <= most[r] and most[r] == most[r]
            most[r] = of_unit[r] if larger else most[r]
            places[r] = real(j) if larger else places[r]


def output_layer_of_few(
    b: Reals,
    b_stride: Int,
    y: Reals,
    y_stride: Int,
    weight: Reals,
    weight_stride: Int,
    batch: Int,
    n: Int,
    rows_of_chunk: Int,
    backward: Flag,
    counts: Flag,
    by_threshold: Flag,
    threshold: Real,
    first: Int,
    last: Int,
    of_units: Reals,
    of_rows: Reals,
    totals: Doubles,
    z: Reals,
    a: Reals,
    costs: Doubles,
    hits: Doubles,
    partials: Reals,
    delta: Reals,
) -> None:
    """As output_layer, for few units; z and a stay. One output names the class by whether it reaches the threshold.

    of_units   room for four times the values of a chunk; of_rows for four numbers a row, totals for one
    """
    n_chunks = (batch + rows_of_chunk - 1) // rows_of_chunk
    for chunk in range(first, last):
        m = chunk // n_chunks
        row = (chunk - m * n_chunks) * rows_of_chunk
        n_rows = rows_of_chunk if row + rows_of_chunk <= batch else batch - row
        at, size = (m * batch + row) * n, n_rows * n
        sums, most = of_rows[:n_rows], of_rows[n_rows : 2 * n_rows]
        named, right = of_rows[2 * n_rows : 3 * n_rows], of_rows[3 * n_rows : 4 * n_rows]
        zs, values, targets = of_units[:size], of_units[size : 2 * size], of_units[2 * size : 3 * size]
        terms, total = of_units[3 * size : 4 * size], totals[:n_rows]
        weights = weight[m * weight_stride + row : m * weight_stride + row + n_rows]
        by_unit(z[at : at + size], n, zs)
        by_unit(y[m * y_stride + row * n : m * y_stride + row * n + size], n, targets)
        for j in range(n):
            bias, of_unit = b[m * b_stride + j], zs[j * n_rows : j * n_rows + n_rows]
            for r in range(n_rows):
                of_unit[r] += bias
        activate_by_unit(zs, values, n_rows, sums)
        for i in range(size):
            terms[i] = cost_term(zs[i], values[i], targets[i])
        for r in range(n_rows):
            total[r] = double(terms[r])
        for j in range(1, n):
            of_unit = terms[j * n_rows : j * n_rows + n_rows]
            for r in range(n_rows):
                total[r] += double(of_unit[r])
        for r in range(n_rows):
            sums[r] = cost_outer(real(total[r]))
            total[r] = double(sums[r]) * double(weights[r])
        costs[chunk] = sum_of(total)
        if counts:
            if by_threshold:
                for r in range(n_rows):
                    named[r], right[r] = real(values[r] >= threshold), real(targets[r] >= threshold)
            else:
                largest_places(values, n_rows, most, named)
                largest_places(targets, n_rows, most, right)
            for r in range(n_rows):
                total[r] = double(weights[r]) if named[r] == right[r] else 0.0
            hits[chunk] = sum_of(total)
        if backward:
            deltas = delta[at : at + size]
            for j in range(n):
                d = terms[j * n_rows : j * n_rows + n_rows]
                unit_z, unit_a = zs[j * n_rows : j * n_rows + n_rows], values[j * n_rows : j * n_rows + n_rows]
                unit_y = targets[j * n_rows : j * n_rows + n_rows]
                for r in range(n_rows):
                    d[r] = output_delta_value(unit_z[r], unit_a[r], unit_y[r], sums[r], weights[r])
                for r in range(n_rows):
                    deltas[r * n + j] = d[r]
                partials[chunk * n + j] = sum_of(d)


def finish_output(
    costs: Doubles,
    hits: Doubles,
    partials: Reals,
    n_chunks: Int,
    n: Int,
    scale: Doubles,
    scale_stride: Int,
    clock: Ints,
    training: Flag,
    backward: Flag,
    n_models: Int,
    first: Int,
    last: Int,
    db: Reals,
    db_stride: Int,
    tally: Doubles,
) -> None:
    """Add up the chunks: cost, hits and the first step whose cost is not finite to the tally, and db (BP3).

    For the models from `first` on, of n_models.
    """
    for m in range(first, last):
        cost = right = 0.0
        for chunk in range(m * n_chunks, (m + 1) * n_chunks):
            cost += costs[chunk]
            right += hits[chunk]
        cost *= scale[m * scale_stride]
        tally[COST * n_models + m] += cost
        tally[HITS * n_models + m] += right * scale[m * scale_stride]
        if training and not abs(cost) < inf and tally[FIRST_BAD * n_models + m] == 0:
            tally[FIRST_BAD * n_models + m] = clock[STEP] + 1
        if backward:
            sums = db[m * db_stride : m * db_stride + n]
            for j in range(n):
                sums[j] = partials[m * n_chunks * n + j]
            for chunk in range(m * n_chunks + 1, (m + 1) * n_chunks):
                for j in range(n):
                    sums[j] += partials[chunk * n + j]


# ---------------------------------------------------------------- the gradient's norm


def add_squares(grad: Reals, grad_stride: Int, n: Int, size: Int, first: Int, last: Int, squares: Doubles) -> None:
    """squares[i] <- the sum of the squares of the i-th piece of `size` numbers, the pieces of all models in a row."""
    n_pieces = (n + size - 1) // size
    for i in range(first, last):
        begin = i % n_pieces * size
        part = grad[i // n_pieces * grad_stride + begin : i // n_pieces * grad_stride + min(begin + size, n)]
        total = 0.0
        for j in range(part.size):
            total += double(part[j]) * double(part[j])
        squares[i] = total


def finish_norm(
    squares: Doubles, per_model: Int, bounds: Given, n_models: Int, n_groups: Int, first: Int, last: Int, clip: Reals
) -> None:
    """clip <- min(1, bound / norm) in each group, for the models from `first` on."""
    for m in range(first, last):
        square = 0.0
        for i in range(m * per_model, (m + 1) * per_model):
            square += squares[i]
        factor = min(1.0, bounds[m] / sqrt(square)) if square > 0 else 1.0
        for group in range(n_groups):
            clip[group * n_models + m] = real(factor)


# ---------------------------------------------------------------- the clock


def move_on(steps: Int, rows: Int, clock: Ints) -> None:
    """Count so many steps, and so many rows of this epoch."""
    clock[STEP] += steps
    clock[POSITION] += rows


# ---------------------------------------------------------------- bringing a batch


def begin_step(
    clock: Ints, batch: Int, known: Ints, valid: Doubles, weight: Doubles, ahead: Reals, table: Reals, at: Ints
) -> None:
    """at <- where in the window this batch begins, table <- this step's numbers; add the rows' weights to the tally.

    known   position of the window's first row, and step of this epoch whose numbers stand first in `ahead`
    valid   (n_models,) what is added to `weight`: 0 where it has been done
    """
    at[0] = clock[POSITION] - known[0]
    for m in range(weight.size):
        weight[m] += valid[m]
    begin = (clock[POSITION] // batch - known[1]) * table.size
    for i in range(table.size):
        table[i] = ahead[begin + i]


def begin_steps(clock: Ints, batch: Int, own: Ints) -> None:
    """own <- a thread's clock, which is to be moved on before each step."""
    own[STEP], own[POSITION] = clock[STEP] - 1, clock[POSITION] - batch


def begin_own_step(
    clock: Ints, batch: Int, n_models: Int, first: Int, last: Int, ahead: Reals, table: Reals, own: Ints, at: Ints
) -> None:
    """Move a thread's clock on; table (n, n_models) <- the numbers of its step, for the models from `first` on.

    clock   as it was before the first of these steps, whose numbers stand first in `ahead`
    at      (1,) <- where among the rows of these steps the thread's begin
    """
    own[STEP] += 1
    own[POSITION] += batch
    at[0] = own[POSITION] - clock[POSITION]
    begin = (own[STEP] - clock[STEP]) * table.size
    for i in range(table.size // n_models):
        for m in range(first, last):
            table[i * n_models + m] = ahead[begin + i * n_models + m]


def mix(x: Word, key: Word) -> Word:
    """Return a hash of x under a round key."""
    x = word((x ^ key) * word(0x9E3779B1))
    x = word(x ^ (x >> word(15)))
    x = word(x * word(0x85EBCA77))
    x = word(x ^ (x >> word(13)))
    x = word(x * word(0xC2B2AE3D))
    return word(x ^ (x >> word(16)))


def permute(numbers: Words, keys: Words, half: Word) -> None:
    """numbers <- the Feistel network's values: randomness/feistel.py, for many numbers at once."""
    mask = word((word(1) << half) - word(1))
    k0, k1, k2, k3, k4, k5, k6, k7 = keys[0], keys[1], keys[2], keys[3], keys[4], keys[5], keys[6], keys[7]
    for i in range(numbers.size):
        left, right = word(numbers[i] >> half), word(numbers[i] & mask)
        left = word(left ^ word(mix(right, k0) & mask))
        right = word(right ^ word(mix(left, k1) & mask))
        left = word(left ^ word(mix(right, k2) & mask))
        right = word(right ^ word(mix(left, k3) & mask))
        left = word(left ^ word(mix(right, k4) & mask))
        right = word(right ^ word(mix(left, k5) & mask))
        left = word(left ^ word(mix(right, k6) & mask))
        right = word(right ^ word(mix(left, k7) & mask))
        numbers[i] = word(word(left << half) | right)


def order_rows(
    keys: Words,
    counts: Ints,
    halves: Ints,
    lines: Ints,
    line: Ints,
    n_places: Int,
    clock: Ints,
    size: Int,
    first: Int,
    last: Int,
    places: Words,
    walking: Words,
    outside: Ints,
    rows: Ints,
) -> None:
    """rows[order, i] <- the row at the clock's position + i of the orders from `first` on; the last one is repeated.

    keys             (n_orders, 8) round keys of this epoch
    counts, halves   (n_orders,) places of each order, and half the bits of their numbers
    lines, line      (n_lines, n_places) the row at each place, or empty; (n_orders,) the line of each order
    places, walking, outside   room for `size` numbers each
    """
    for order in range(first, last):
        own, half, end = keys[8 * order : 8 * order + 8], word(halves[order]), counts[order] - 1
        for i in range(size):
            places[i] = word(min(clock[POSITION] + i, end))
        permute(places[:size], own, half)
        n_outside = 0
        for i in range(size):
            outside[n_outside] = i
            n_outside += whole(places[i] > word(end))
        while n_outside > 0:  # those outside walk on together, until all are inside
            for i in range(n_outside):
                walking[i] = places[outside[i]]
            permute(walking[:n_outside], own, half)
            n_walking, n_outside = n_outside, 0
            for i in range(n_walking):
                place = outside[i]
                places[place] = walking[i]
                outside[n_outside] = place
                n_outside += whole(walking[i] > word(end))
        own_rows = rows[order * size : order * size + size]
        for i in range(size):
            own_rows[i] = lines[line[order] * n_places + whole(places[i])] if lines.size > 0 else whole(places[i])


def take_rows(
    x: Given, n: Int, rows: Ints, stride: Int, at: Ints, batch: Int, first: Int, last: Int, out: Reals
) -> None:
    """out <- the rows of x, cast: `rows` has a line for each `stride` numbers, in which the batch begins at at[0].

    stride   0 where one line serves all
    """
    line, place = first // batch * stride + at[0], first % batch
    for i in range(first, last):
        row = rows[line + place]
        source, target = x[row * n : row * n + n], out[i * n : i * n + n]
        for j in range(n):
            target[j] = real(source[j])
        place += 1
        if place == batch:
            line, place = line + stride, 0


def take_codes(
    labels: Labels,
    codes: Given,
    codes_stride: Int,
    n: Int,
    rows: Ints,
    stride: Int,
    at: Ints,
    batch: Int,
    first: Int,
    last: Int,
    out: Reals,
) -> None:
    """out <- the codes of the labels of the rows; codes_stride is 0 where one table serves all."""
    line, place, table = first // batch * stride + at[0], first % batch, first // batch * codes_stride
    for i in range(first, last):
        begin = table + whole(labels[rows[line + place]]) * n
        source, target = codes[begin : begin + n], out[i * n : i * n + n]
        for j in range(n):
            target[j] = real(source[j])
        place += 1
        if place == batch:
            line, place, table = line + stride, 0, table + codes_stride
