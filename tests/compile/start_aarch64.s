// A program of its own, without a C library: it reads an image of memory from its standard input to where the image
// wants to lie, runs `step` on it by one thread or by two, and writes the image to its standard output.
// The image begins with six words: threads, the second thread's stack, table, scratch, control, and 0.
// Linked with image_base and image_size, as `emulated.py` does.

    .globl _start
_start:
    ldr x0, =image_base
    ldr x1, =image_size
    mov x2, #3                  // to be read and written
    mov x3, #0x32               // private, anonymous, at this address
    mov x4, #-1
    mov x5, #0
    mov x8, #222                // mmap
    svc #0
    ldr x19, =image_base
    cmp x0, x19
    b.ne fail
    ldr x20, =image_size
    add x20, x19, x20

    mov x21, x19
read:
    subs x2, x20, x21
    b.eq loaded
    mov x0, #0
    mov x1, x21
    mov x8, #63                 // read
    svc #0
    cmp x0, #0
    b.le fail
    add x21, x21, x0
    b read

loaded:
    ldr x22, [x19]              // threads
    cmp x22, #2
    b.lo first
    ldr x0, =0x50f00            // a thread: the same memory, files and signal handlers
    ldr x1, [x19, #8]
    mov x2, #0
    mov x3, #0
    mov x4, #0
    mov x8, #220                // clone
    svc #0
    cmp x0, #0
    b.lt fail
    b.gt first

    mov x3, #1                  // the second thread
    bl share
    add x1, x19, #40
    mov x2, #1
    stlr x2, [x1]
    mov x0, #0
    mov x8, #93                 // exit
    svc #0

first:
    mov x3, #0
    bl share
    cmp x22, #2
    b.lo written
wait:
    add x1, x19, #40
    ldar x2, [x1]
    cbnz x2, written
    mov x8, #124                // sched_yield
    svc #0
    b wait

written:
    mov x21, x19
write:
    subs x2, x20, x21
    b.eq done
    mov x0, #1
    mov x1, x21
    mov x8, #64                 // write
    svc #0
    cmp x0, #0
    b.le fail
    add x21, x21, x0
    b write
done:
    mov x0, #0
    mov x8, #94                 // exit_group
    svc #0
fail:
    mov x0, #1
    mov x8, #94
    svc #0

share:                          // step(table, scratch, control, x3, threads)
    ldr x0, [x19, #16]
    ldr x1, [x19, #24]
    ldr x2, [x19, #32]
    mov x4, x22
    b step
