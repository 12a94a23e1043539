/* Greedy NMS that stops at a number of boxes, with the comparison of torchvision: of a candidate with the boxes
 * that are kept, which are few, instead of each kept box with all candidates after it. */
#include "vectors.h"

#define BLOCK 64 /* kept boxes that are compared before the search stops at one that overlaps */

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* fused sums would round otherwise, and differ from torchvision */
#endif

static inline double larger(double a, double b) { return a > b ? a : b; }
static inline double smaller(double a, double b) { return a < b ? a : b; }

/* Write the indices of the boxes that are kept, at most `limit`; return their number.
 * boxes: (n, 4) x1, y1, x2, y2, the best first. */
int64_t keep_boxes(const double *boxes, int64_t n, double threshold, int64_t limit, int64_t *kept) {
    double *sides = malloc(sizeof(double) * 5 * (size_t)most(limit, 1));
    if (!sides) return -1;
    double *x1 = sides, *y1 = sides + limit, *x2 = sides + 2 * limit, *y2 = sides + 3 * limit, *area = sides + 4 * limit;
    int64_t count = 0;
    for (int64_t i = 0; i < n && count < limit; i++) {
        const double *box = boxes + 4 * i;
        double a = box[0], b = box[1], c = box[2], d = box[3], own = (c - a) * (d - b);
        int overlaps = 0;
        for (int64_t start = 0; start < count && !overlaps; start += BLOCK) {
            int64_t end = least(start + BLOCK, count);
            for (int64_t k = start; k < end; k++) {
                double width = larger(0, smaller(c, x2[k]) - larger(a, x1[k]));
                double height = larger(0, smaller(d, y2[k]) - larger(b, y1[k]));
                double both = width * height;
                overlaps |= both / (area[k] + own - both) > threshold;
            }
        }
        if (overlaps) continue;
        x1[count] = a, y1[count] = b, x2[count] = c, y2[count] = d, area[count] = own;
        kept[count++] = i;
    }
    free(sides);
    return count;
}
