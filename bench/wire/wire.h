/* What sim.c and load.c share: the clock, dying, sockets, and the ruler for delays. */
#ifndef WIRE_H
#define WIRE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ULL
#define MILLISECOND 1000000ULL
#define STAMP_DIGITS 19 /* a stream's text is '@' and the send time in nanoseconds, zero-padded to this width */

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(2);
}

static inline void *must(void *memory)
{
    if (!memory) die("out of memory");
    return memory;
}

static inline void put_stamp(char *where, uint64_t ns)
{
    for (int i = STAMP_DIGITS - 1; i >= 0; i--, ns /= 10) where[i] = (char)('0' + ns % 10);
}

static inline struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline void set_nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Waits with nanosecond precision; UINT64_MAX waits for ever. */
static inline int wait_events(int epoll, struct epoll_event *events, int max, uint64_t wait_ns)
{
    if (wait_ns == UINT64_MAX) return epoll_wait(epoll, events, max, -1);
    if (wait_ns == 0) return epoll_wait(epoll, events, max, 0);
    struct timespec t = {.tv_sec = (time_t)(wait_ns / SECOND), .tv_nsec = (long)(wait_ns % SECOND)};
    return epoll_pwait2(epoll, events, max, &t, NULL);
}

/* A log-linear histogram: 32 steps per power of two, so about 3 % wide. */
#define STEPS 32
struct ruler {
    uint64_t count, max, cells[64 * STEPS];
};

static inline void ruler_add(struct ruler *r, uint64_t ns)
{
    unsigned cell = (unsigned)ns;
    if (ns >= STEPS) {
        unsigned power = 63U - (unsigned)__builtin_clzll(ns);
        cell = (power - 4) * STEPS + (unsigned)((ns >> (power - 5)) & (STEPS - 1));
    }
    r->cells[cell]++;
    r->count++;
    if (ns > r->max) r->max = ns;
}

/* The middle of the cell that holds this share of all values, in microseconds. */
static inline double ruler_us(const struct ruler *r, double share)
{
    if (!r->count) return 0;
    uint64_t wanted = (uint64_t)(share * (double)r->count), seen = 0;
    if (wanted >= r->count) return (double)r->max / 1000.0;
    for (unsigned cell = 0; cell < 60 * STEPS; cell++) {
        seen += r->cells[cell];
        if (seen <= wanted) continue;
        if (cell < STEPS) return cell / 1000.0;
        unsigned power = cell / STEPS + 4;
        double width = (double)(1ULL << (power - 5));
        return ((double)(1ULL << power) + (cell % STEPS + 0.5) * width) / 1000.0;
    }
    return (double)r->max / 1000.0;
}

#endif
