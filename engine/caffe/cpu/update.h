/* The solvers' updates in one pass: what torch's operations on lists read and write again and again.
 *
 * `table` has `params` rows, one a parameter: how many values it has, then the addresses of its data, its diff and its
 * one or two histories. The `total` values of all count as one long array, which threads share out in parts.
 *
 *     regularize    g = scale diff + decay data, or + decay sign(data)
 *     sgd           v = momentum v + rate g,                                      step = v
 *     nesterov      the same,                                                     step = (1 + momentum) v - momentum v_old
 *     adam          m = beta m + (1 - beta) g, v = beta2 v + (1 - beta2) g^2,     step = rate m / (sqrt(v) + delta)
 *
 * The step is subtracted from data, and stays in diff.
 */
#define PART 32768   /* values that a thread takes at a time */
#define STRETCH 2048 /* values of a parameter that are worked on together: data, diff and histories stay in the cache */

enum rule { SGD, NESTEROV, ADAM }; /* update_rules.py has their numbers */

struct settings {
    int64_t l1;
    float scale, decay, rate, momentum, momentum2, delta;
};

INLINE void regularize(float *restrict diff, const float *restrict data, int64_t count, struct settings s)
{
    if (s.scale != 1)
        for (int64_t i = 0; i < count; i++)
            diff[i] *= s.scale;
    if (s.decay != 0 && s.l1)
        for (int64_t i = 0; i < count; i++)
            diff[i] += s.decay * (float)((data[i] > 0) - (data[i] < 0));
    else if (s.decay != 0)
        for (int64_t i = 0; i < count; i++)
            diff[i] += s.decay * data[i];
}

INLINE void apply(enum rule rule, float *restrict data, float *restrict diff, float *restrict first,
                  float *restrict second, int64_t count, struct settings s)
{
    regularize(diff, data, count, s);
    for (int64_t i = 0; i < count; i++) {
        float step;
        if (rule == ADAM) {
            first[i] = s.momentum * first[i] + (1 - s.momentum) * diff[i];
            second[i] = s.momentum2 * second[i] + (1 - s.momentum2) * (diff[i] * diff[i]);
            step = s.rate * (first[i] / (sqrtf(second[i]) + s.delta));
        } else {
            float old = first[i];
            first[i] = s.momentum * old + s.rate * diff[i];
            step = rule == SGD ? first[i] : (1 + s.momentum) * first[i] - s.momentum * old;
        }
        diff[i] = step;
        data[i] -= step;
    }
}

/* The values `part` to part + PART of all that the table lists. */
INLINE void apply_part(enum rule rule, const int64_t *table, int64_t params, int64_t part, struct settings s)
{
    int64_t columns = rule == ADAM ? 5 : 4, passed = 0; /* values of the parameters before */
    for (int64_t p = 0; p < params && passed < part + PART; p++) {
        const int64_t *row = table + p * columns;
        int64_t end = least(row[0], part + PART - passed);
        for (int64_t i = most(0, part - passed); i < end; i += STRETCH)
            apply(rule, (float *)row[1] + i, (float *)row[2] + i, (float *)row[3] + i,
                  rule == ADAM ? (float *)row[4] + i : 0, least(STRETCH, end - i), s);
        passed += row[0];
    }
}

EACH_PROCESSOR
void update(const int64_t *table, int64_t params, int64_t total, int64_t rule, int64_t l1, float scale, float decay,
            float rate, float momentum, float momentum2, float delta)
{
    struct settings s = {l1, scale, decay, rate, momentum, momentum2, delta};
#pragma omp parallel for schedule(static) if (total > PART)
    for (int64_t part = 0; part < total; part += PART) {
        if (rule == SGD)
            apply_part(SGD, table, params, part, s);
        else if (rule == NESTEROV)
            apply_part(NESTEROV, table, params, part, s);
        else
            apply_part(ADAM, table, params, part, s);
    }
}
